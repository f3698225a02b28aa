package xqkv_test

import (
	"fmt"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// same compares as text, in which NaN is NaN.
func same(t *testing.T, name string, result, expected any) {
	t.Helper()
	if fmt.Sprint(result) != fmt.Sprint(expected) {
		t.Errorf("%s is %v, not %v", name, result, expected)
	}
}

func TestThreeCallsFallOutOfTwoInputs(t *testing.T) {
	_, projection := small(t)
	query, key, value := poisoned(8), poisoned(4), poisoned(2)
	call := xqkv.Forward{Query: xqkv.NewView(query), Key: xqkv.NewView(key)}
	call.Value = xqkv.NewView(value)

	call.Decoder = xqkv.NewInput([]float32{1, 2, 3, 4, 5, 6}, 2)
	same(t, "stats", must(projection.Forward(call)).MultiplyAdds, 2*4*3)
	same(t, "query of a decode step", query, []float32{1, 2, 3, 6, 4, 5, 6, 15})
	if !isPoisoned(key) || !isPoisoned(value) {
		t.Errorf("a decode step wrote key %v or value %v", key, value)
	}

	call.Layer, call.Encoder = 1, xqkv.NewInput([]float32{5, 3, 2, 2}, 2)
	stats := must(projection.Forward(call))
	same(t, "stats", stats.MultiplyAdds, 2*4*3+2*(2+1)*2)
	same(t, "version, matmuls, plans",
		[]int64{stats.WeightsVersion, stats.Matmuls, stats.PlansMade}, []int64{1, 3, 0})
	same(t, "query", query, []float32{10, 20, 30, 60, 40, 50, 60, 150})
	same(t, "key", key, []float32{90, 40, 50, 20})
	same(t, "value", value, []float32{90, 60})

	fill := xqkv.Forward{Encoder: call.Encoder, Key: call.Key, Value: call.Value}
	same(t, "stats", must(projection.Forward(fill)).MultiplyAdds, 2*(2+1)*2)
	same(t, "key", key, []float32{9, 4, 5, 2})
	same(t, "value", value, []float32{9, 6})
}

func TestViewsWriteTheirElementsOnly(t *testing.T) {
	_, projection := small(t)
	hole := poisoned(1)[0]

	// [layers, heads, rows, width], and lanes of V in every other place.
	key, value := poisoned(10), poisoned(10)
	call := xqkv.Forward{LayerCount: 2, Encoder: xqkv.NewInput([]float32{5, 3, 2, 2}, 2)}
	call.Key, call.Value = xqkv.NewView(key), xqkv.NewView(value[1:])
	call.Key.RowStride, call.Key.LayerStride = 3, 5
	call.Value.RowStride, call.Value.LayerStride = 2, 4
	must(projection.Forward(call))
	same(t, "key", key, []float32{9, 4, hole, 5, 2, 90, 40, hole, 50, 20})
	same(t, "value", value, []float32{hole, 9, hole, 6, hole, 90, hole, 60, hole, hole})

	// Transposed: [heads, width, rows], from rows that lie four apart.
	query := poisoned(8)
	decoder := xqkv.NewInput([]float32{1, 2, 3, -1, 4, 5, 6}, 2)
	decoder.RowStride = 4
	step := xqkv.Forward{Decoder: decoder, Query: xqkv.NewView(query)}
	step.Query.RowStride, step.Query.WidthStride, step.Query.HeadStride = 1, 2, 4
	must(projection.Forward(step))
	same(t, "query", query, []float32{1, 4, 2, 5, 3, 6, 6, 15})
}

func TestASliceOfExactlyTheNeededLengthWillDo(t *testing.T) {
	_, projection := small(t)
	query := poisoned(14)
	call := xqkv.Forward{Decoder: xqkv.NewInput([]float32{1, 2, 3, 4, 5, 6}, 2)}
	call.Query = xqkv.NewView(query)
	call.Query.RowStride, call.Query.HeadStride = 10, 2
	must(projection.Forward(call))
	call.Query = xqkv.NewView(query[:13])
	call.Query.RowStride, call.Query.HeadStride = 10, 2
	_, err := projection.Forward(call)
	holdError(t, "one less", err, xqkv.StatusInvalidShape, "need 14")
}

func TestEveryElementTypeGoesInAndOut(t *testing.T) {
	_, projection := small(t)
	decoder := xqkv.NewInput([]xqkv.BFloat16{0x3f80, 0x4000, 0xc040}, 1) // 1, 2, -3
	half, brain := make([]xqkv.Float16, 4), make([]xqkv.BFloat16, 4)
	must(projection.Forward(xqkv.Forward{Decoder: decoder, Query: xqkv.NewView(half)}))
	same(t, "query in f16", half, []xqkv.Float16{0x3c00, 0x4000, 0xc200, 0})
	decoder = xqkv.NewInput(half[:3:3], 1)
	must(projection.Forward(xqkv.Forward{Decoder: decoder, Query: xqkv.NewView(brain)}))
	same(t, "query in bf16", brain, []xqkv.BFloat16{0x3f80, 0x4000, 0xc040, 0})
}

func BenchmarkDecodeStep(b *testing.B) {
	_, projection := small(b)
	call := xqkv.Forward{Decoder: xqkv.NewInput([]float32{1, 2, 3}, 1)}
	call.Query = xqkv.NewView(poisoned(4))
	b.ReportAllocs()
	b.ResetTimer()
	for round := 0; round < b.N; round++ {
		must(projection.Forward(call))
	}
}
