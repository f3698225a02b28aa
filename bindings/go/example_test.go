package xqkv_test

import (
	"fmt"
	"sync"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// Two ranks, each in a goroutine of its own, load their shard of a Whisper checkpoint and project.
func Example() {
	checkpoint := xqkv.Checkpoint{Directory: "../../examples/whisper"}
	spec, err := xqkv.ReadSpec(checkpoint)
	if err != nil {
		panic(err)
	}
	context, err := xqkv.NewContext(xqkv.ContextOptions{ThreadCount: 1})
	if err != nil {
		panic(err)
	}
	defer context.Close()
	decoder, encoder := make([]float32, 4*spec.DecoderWidth), make([]float32, 50*spec.EncoderWidth)
	lines := make([]string, 2)
	var ranks sync.WaitGroup
	for rank := range lines {
		ranks.Add(1)
		go func(rank int) {
			defer ranks.Done()
			projection, err := xqkv.Load(context, spec, xqkv.Split{Rank: rank, RankCount: 2}, checkpoint)
			if err != nil {
				panic(err)
			}
			defer projection.Close()
			shard := projection.Shard()
			query := make([]float32, 4*shard.QueryColumns)
			key, value := make([]float32, 50*shard.KeyColumns), make([]float32, 50*shard.ValueColumns)
			prefill, err := projection.Forward(xqkv.Forward{
				Decoder: xqkv.Of(decoder), DecoderRows: 4, Query: xqkv.Of(query),
				Encoder: xqkv.Of(encoder), EncoderRows: 50, Key: xqkv.Of(key), Value: xqkv.Of(value),
			})
			if err != nil {
				panic(err)
			}
			step := xqkv.Forward{Decoder: xqkv.Of(decoder), DecoderRows: 1, Query: xqkv.Of(query)}
			decode, err := projection.Forward(step)
			if err != nil {
				panic(err)
			}
			lines[rank] = fmt.Sprintln("rank", rank, "prefill", prefill.MultiplyAdds, "decode", decode.MultiplyAdds)
		}(rank)
	}
	ranks.Wait()
	fmt.Print(lines[0], lines[1])
	// Output:
	// rank 0 prefill 7667712 decode 73728
	// rank 1 prefill 7667712 decode 73728
}
