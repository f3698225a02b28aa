package xqkv_test

import (
	"fmt"
	"sync"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// project loads one rank's shard and makes the three calls of an engine on layer 0.
func project(
	context *xqkv.Context, rank int, decoder, encoder xqkv.Input,
) (query, key, value []float32) {
	checkpoint := xqkv.Checkpoint{Directory: "../../tests/data/t5"}
	spec := must(xqkv.ReadSpec(checkpoint))
	projection := must(xqkv.Load(context, spec, must(xqkv.Balance(spec, rank, 2)), checkpoint))
	defer projection.Close()
	shard := must(projection.Shard())
	query = make([]float32, decoder.Rows*shard.QueryColumns)
	key = make([]float32, encoder.Rows*shard.KeyColumns)
	value = make([]float32, encoder.Rows*shard.ValueColumns)

	// A cache fill: new encoder rows, no decoder rows yet.
	must(projection.Forward(xqkv.Forward{
		Encoder: encoder, Key: xqkv.NewView(key), Value: xqkv.NewView(value),
	}))
	// Prefill, or a mixed batch: both sides, each of any number of rows.
	must(projection.Forward(xqkv.Forward{
		Decoder: decoder, Query: xqkv.NewView(query),
		Encoder: encoder, Key: xqkv.NewView(key), Value: xqkv.NewView(value),
	}))
	// A decode step: no encoder, so nothing but Q is computed.
	must(projection.Forward(xqkv.Forward{Decoder: decoder, Query: xqkv.NewView(query)}))
	return query, key, value
}

// Two ranks, each in a goroutine of its own, load their halves of a T5 checkpoint and project what
// the model itself was given.
func Example() {
	io := readArrays("../../tests/data/t5/io.safetensors")
	decoder := xqkv.NewInput(io["layers.0.decoder"].values, io["layers.0.decoder"].shape[0])
	encoder := xqkv.NewInput(io["encoder"].values, io["encoder"].shape[0])
	context := must(xqkv.NewContext(xqkv.ContextOptions{}))
	defer context.Close()
	lines := make([]string, 2)
	var ranks sync.WaitGroup
	for rank := range lines {
		rank := rank
		ranks.Add(1)
		go func() {
			defer ranks.Done()
			query, key, value := project(context, rank, decoder, encoder)
			lines[rank] = fmt.Sprintf("rank %d: query %v, key %v, value %v\n", rank,
				isHalf(query, io["layers.0.query"], rank),
				isHalf(key, io["layers.0.key"], rank), isHalf(value, io["layers.0.value"], rank))
		}()
	}
	ranks.Wait()
	fmt.Print("as the model: ", lines[0], "as the model: ", lines[1])
	// Output:
	// as the model: rank 0: query true, key true, value true
	// as the model: rank 1: query true, key true, value true
}

// fillPages writes K and V of picked rows to their slots in pages of two rows, those of K head by
// head: [pages, heads, 2, width].
func fillPages(
	projection *xqkv.Projection, shard xqkv.Shard, hidden xqkv.Input, picked, slots []int64,
) (key, value []float32) {
	const pages, rows = 4, 2
	key = make([]float32, pages*rows*shard.KeyColumns)
	value = make([]float32, pages*rows*shard.ValueColumns)
	call := xqkv.Forward{Encoder: hidden, Key: xqkv.NewView(key), Value: xqkv.NewView(value)}
	call.Encoder.RowList, call.Encoder.BufferRows = picked, hidden.Rows
	call.Encoder.Rows = len(picked)
	call.Key.Slots, call.Key.SlotCount, call.Key.GroupRows = slots, pages*rows, rows
	call.Value.Slots, call.Value.SlotCount = slots, pages*rows
	width := shard.KeyColumns / shard.KeyValueHeadCount
	call.Key.RowStride, call.Key.HeadStride = width, rows*width
	must(projection.Forward(call))
	return key, value
}

// Rows 2 and 0 of three, of one head, into the second page.
func Example_pages() {
	context := must(xqkv.NewContext(xqkv.ContextOptions{}))
	defer context.Close()
	projection := must(xqkv.NewProjection(context, smallSpec, xqkv.ProjectionOptions{}))
	defer projection.Close()
	putSmall(projection)
	hidden := xqkv.NewInput([]float32{5, 3, 2, 2, 1, 0}, 3)
	key, value := fillPages(
		projection, must(projection.Shard()), hidden, []int64{2, 1, 0}, []int64{2, -1, 3})
	fmt.Println(key[4:8], value[2:4])
	// Output: [2 3 9 4] [0 9]
}

// isHalf holds one rank's columns against the model's; families_test.go holds the exact bound.
func isHalf(results []float32, model array, rank int) bool {
	columns := model.shape[1] / 2
	for at, result := range results {
		expected := model.values[at/columns*model.shape[1]+rank*columns+at%columns]
		if difference := result - expected; !(difference < 1e-4 && difference > -1e-4) {
			return false
		}
	}
	return len(results) == model.shape[0]*columns
}
