package xqkv

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
)

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Each family, by several numbers of ranks, each rank writing its heads into common rows.
func TestRanksProjectWhatTheModelDid(t *testing.T) {
	numbers := map[string]int{"tests/data/mllama": 1}
	for _, name := range checkpoints {
		checkpoint := Checkpoint{Directory: folder(name)}
		spec, io := must(ReadSpec(checkpoint)), tensors(folder(name)+"/io.safetensors")
		number := numbers[name]
		layer := func(what string) []float32 { return io[fmt.Sprintf("layers.%d.%s", number, what)] }
		decoder, encoder := layer("decoder"), io["encoder"]
		decoderRows, encoderRows := len(decoder)/spec.DecoderWidth, len(encoder)/spec.EncoderWidth
		context := must(NewContext(ContextOptions{}))
		for _, ranks := range []int{1, 2, 3, 5} {
			query, key := make([]float32, len(layer("query"))), make([]float32, len(layer("key")))
			value := make([]float32, len(layer("value")))
			for _, output := range [][]float32{query, key, value} {
				for at := range output {
					output[at] = float32(math.NaN())
				}
			}
			columns, width := spec.QueryHeads*spec.HeadWidth, spec.HeadWidth
			keyColumns := spec.KeyValueHeads * width
			for rank := 0; rank < ranks; rank++ {
				projection := must(Load(context, spec, Split{rank, ranks}, checkpoint))
				shard := projection.Shard()
				first, firstKey := shard.QueryHeadBegin*width, shard.KeyValueHeadBegin*width
				must(projection.Forward(Forward{
					Decoder: Of(decoder), DecoderRows: decoderRows, Query: Strided(query[first:], columns),
					Encoder: Of(encoder), EncoderRows: encoderRows,
					Key: Strided(key[firstKey:], keyColumns), Value: Strided(value[firstKey:], keyColumns),
				}))
				projection.Close()
			}
			for part, output := range map[string][]float32{"query": query, "key": key, "value": value} {
				// Of the order of the header's bound; the command `xqkv verify` holds the bound itself.
				allowed := float64(max(spec.DecoderWidth, spec.EncoderWidth)+2) * math.Pow(2, -24)
				if error := farthest(output, layer(part)); error > allowed {
					t.Errorf("%s, %d ranks, %s: %g from the model", name, ranks, part, error)
				}
			}
		}
		context.Close()
	}
	if HandleCount() != 0 {
		t.Errorf("%d handles are left", HandleCount())
	}
}

func small(t testing.TB) (*Context, *Projection) {
	context := must(NewContext(ContextOptions{ThreadCount: 2}))
	spec := Spec{WeightDtype: F32, DecoderWidth: 4, EncoderWidth: 4, QueryHeads: 2, KeyValueHeads: 2, HeadWidth: 2}
	projection := must(NewProjection(context, spec, Split{}))
	update := must(projection.Begin())
	identity := []float32{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}
	for _, part := range []Part{Query, Key, Value} {
		if err := Put(update, 0, part, Weight, identity, 4, 4); err != nil {
			t.Fatal(err)
		}
	}
	if version := must(update.Commit()); version != 1 {
		t.Errorf("version %d", version)
	}
	return context, projection
}

func TestEveryElementTypeGoesInAndOut(t *testing.T) {
	context, projection := small(t)
	rows, out := []BFloat16{0x3f80, 0x4000, 0xc040, 0}, make([]Float16, 4)
	must(projection.Forward(Forward{Decoder: Of(rows), DecoderRows: 1, Query: Of(out)}))
	if fmt.Sprint(out) != fmt.Sprint([]Float16{0x3c00, 0x4000, 0xc200, 0}) {
		t.Errorf("%x", out)
	}
	projection.Close()
	context.Close()
}

func TestErrorsAreStatusesWithMessages(t *testing.T) {
	context, projection := small(t)
	rows, out := make([]float32, 8), make([]float32, 8)
	_, err := projection.Forward(Forward{Layer: 1, Decoder: Of(rows), DecoderRows: 2, Query: Of(out)})
	var failure *Error
	if !errors.Is(err, LayerOutOfRange) || !errors.As(err, &failure) || failure.Effect != EffectNone {
		t.Errorf("%v", err)
	}
	_, err = projection.Forward(Forward{Decoder: Of(rows), DecoderRows: 3, Query: Of(out)})
	if !errors.Is(err, InvalidShape) || !strings.Contains(err.Error(), "decoder has 8 elements") {
		t.Errorf("%v", err)
	}
	_, err = projection.Forward(Forward{Decoder: Of(rows), DecoderRows: 2, Query: Of(rows)})
	if !errors.Is(err, Overlap) {
		t.Errorf("%v", err)
	}
	if _, err = ReadSpec(Checkpoint{Directory: "/nonexistent"}); !errors.Is(err, CheckpointNotFound) {
		t.Errorf("%v", err)
	}
	update := must(projection.Begin())
	if err = Put(update, 0, Key, Bias, rows[:4], 4, 1); !errors.Is(err, InvalidArgument) {
		t.Errorf("%v", err)
	}
	if err = Put(update, 0, Key, Weight, rows, 4, 4); !errors.Is(err, InvalidShape) {
		t.Errorf("%v", err)
	}
	update.Close()
	projection.Close()
	context.Close()
}

func TestClosedHandlesAnswerAndCloseAgain(t *testing.T) {
	context, projection := small(t)
	update := must(projection.Begin())
	for range [2]int{} {
		for _, handle := range []interface{ Close() error }{update, projection, context} {
			if err := handle.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := projection.Forward(Forward{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := projection.Begin(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := update.Commit(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := NewProjection(context, Spec{WeightDtype: F32, DecoderWidth: 1, QueryHeads: 1, HeadWidth: 1}, Split{}); !errors.Is(err, NullArgument) {
		t.Error(err)
	}
	if HandleCount() != 0 {
		t.Errorf("%d handles are left", HandleCount())
	}
}

func TestGoroutinesProjectSideBySide(t *testing.T) {
	context, projection := small(t)
	var group sync.WaitGroup
	for number := 0; number < 8; number++ {
		group.Add(1)
		go func(number float32) {
			defer group.Done()
			rows, out := []float32{number, 1, 2, 3}, make([]float32, 4)
			for round := 0; round < 500; round++ {
				out[0] = -1
				must(projection.Forward(Forward{Decoder: Of(rows), DecoderRows: 1, Query: Of(out)}))
				if out[0] != number || out[3] != 3 {
					t.Errorf("%v", out)
				}
			}
		}(float32(number))
	}
	group.Wait()
	projection.Close()
	context.Close()
}

func BenchmarkDecodeStep(b *testing.B) {
	context, projection := small(b)
	rows, out := make([]float32, 4), make([]float32, 4)
	call := Forward{Decoder: Of(rows), DecoderRows: 1, Query: Of(out)}
	b.ReportAllocs()
	for round := 0; round < b.N; round++ {
		must(projection.Forward(call))
	}
	projection.Close()
	context.Close()
}
