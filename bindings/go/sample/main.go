// Projects a checkpoint's cross-attention on two ranks: go run ./sample CHECKPOINT
package main

import (
	"fmt"
	"os"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: sample CHECKPOINT")
		os.Exit(2)
	}
	if err := run(xqkv.Checkpoint{Directory: os.Args[1]}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(checkpoint xqkv.Checkpoint) error {
	spec, err := xqkv.ReadSpec(checkpoint)
	if err != nil {
		return err
	}
	context, err := xqkv.NewContext(xqkv.ContextOptions{})
	if err != nil {
		return err
	}
	defer context.Close()
	fmt.Println("rank  columns of Q  columns of K  multiply-adds of a decode step")
	for rank := 0; rank < 2; rank++ {
		projection, err := xqkv.Load(context, spec, xqkv.Split{Rank: rank, RankCount: 2}, checkpoint)
		if err != nil {
			return err
		}
		shard := projection.Shard()
		decoder, query := make([]float32, spec.DecoderWidth), make([]float32, shard.QueryColumns)
		call := xqkv.Forward{Decoder: xqkv.Of(decoder), DecoderRows: 1, Query: xqkv.Of(query)}
		stats, err := projection.Forward(call)
		if err != nil {
			return err
		}
		fmt.Printf("%4d  %12d  %12d  %30d\n", rank, shard.QueryColumns, shard.KeyColumns, stats.MultiplyAdds)
		projection.Close()
	}
	return nil
}
