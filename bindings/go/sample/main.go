// Projects a checkpoint's cross-attention on some ranks, one goroutine each, and prints what each
// one holds and does: go run ./sample CHECKPOINT [RANKS]
package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

const decoderRows, encoderRows = 4, 100

func main() {
	checkpoint, ranks, err := arguments(os.Args[1:])
	if err == nil {
		err = run(checkpoint, ranks)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}

func arguments(given []string) (checkpoint xqkv.Checkpoint, ranks int, err error) {
	switch len(given) {
	case 1:
		return xqkv.Checkpoint{Directory: given[0]}, 2, nil
	case 2:
		ranks, err = strconv.Atoi(given[1])
		return xqkv.Checkpoint{Directory: given[0]}, ranks, err
	}
	return checkpoint, 0, errors.New("usage: sample CHECKPOINT [RANKS]")
}

// row is one rank's line of the table.
type row struct {
	shard           xqkv.Shard
	prefill, decode xqkv.Stats
	err             error
}

func run(checkpoint xqkv.Checkpoint, ranks int) error {
	spec, err := xqkv.ReadSpec(checkpoint)
	if err != nil {
		return err
	}
	context, err := xqkv.NewContext(xqkv.ContextOptions{})
	if err != nil {
		return err
	}
	defer context.Close()
	rows := make([]row, max(ranks, 1))
	var group sync.WaitGroup
	for rank := range rows {
		rank := rank
		group.Add(1)
		go func() {
			defer group.Done()
			rows[rank] = project(context, spec, checkpoint, rank, ranks)
		}()
	}
	group.Wait()
	return print(spec, rows)
}

func project(
	context *xqkv.Context, spec xqkv.Spec, checkpoint xqkv.Checkpoint, rank, ranks int,
) (row row) {
	options, err := xqkv.Balance(spec, rank, ranks)
	if err != nil {
		row.err = err
		return row
	}
	projection, err := xqkv.Load(context, spec, options, checkpoint)
	if err != nil {
		row.err = err
		return row
	}
	defer projection.Close()
	if row.shard, row.err = projection.Shard(); row.err != nil {
		return row
	}
	decoder, query := side(decoderRows, spec.DecoderWidth), side(decoderRows, row.shard.QueryColumns)
	encoder, key := side(encoderRows, spec.EncoderWidth), side(encoderRows, row.shard.KeyColumns)
	call := xqkv.Forward{Decoder: xqkv.NewInput(decoder, decoderRows), Query: xqkv.NewView(query)}
	if row.decode, row.err = projection.Forward(call); row.err != nil {
		return row
	}
	call.Encoder, call.Key = xqkv.NewInput(encoder, encoderRows), xqkv.NewView(key)
	call.Value = xqkv.NewView(side(encoderRows, row.shard.ValueColumns))
	row.prefill, row.err = projection.Forward(call)
	return row
}

func side(rows, columns int) []float32 { return make([]float32, rows*columns) }

func print(spec xqkv.Spec, rows []row) error {
	fmt.Printf("%d layers, %d query and %d key/value heads of %d, xqkv %s\n",
		spec.LayerCount, spec.QueryHeads, spec.KeyValueHeads, spec.HeadWidth, xqkv.Version())
	fmt.Println("rank  Q columns  K columns  weight bytes  multiply-adds: decode     prefill")
	for rank, row := range rows {
		if row.err != nil {
			return fmt.Errorf("rank %d: %w", rank, row.err)
		}
		fmt.Printf("%4d  %9d  %9d  %12d  %21d  %10d\n", rank, row.shard.QueryColumns,
			row.shard.KeyColumns, row.shard.WeightBytes, row.decode.MultiplyAdds,
			row.prefill.MultiplyAdds)
	}
	return nil
}
