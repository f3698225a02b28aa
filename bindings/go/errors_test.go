package xqkv_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// refusal is a call that is refused, with which status, and some words of the message.
type refusal struct {
	call   xqkv.Forward
	status xqkv.Status
	says   string
}

func refusals() map[string]refusal {
	three, four := make([]float32, 3), make([]float32, 4)
	decoder, query := xqkv.NewInput(three, 1), xqkv.NewView(four)
	wrapping := xqkv.NewInput(three, 1<<62+1) // 1<<62 strides of 4 are 0 in 64 bits
	wrapping.RowStride = 4
	strided := func(set func(*xqkv.View)) xqkv.View {
		view := xqkv.NewView(four)
		set(&view)
		return view
	}
	return map[string]refusal{
		"no input": {xqkv.Forward{}, xqkv.StatusInvalidArgument, "both absent"},
		"no view":  {xqkv.Forward{Decoder: decoder}, xqkv.StatusNullArgument, "query.data"},
		"nil slice": {xqkv.Forward{Decoder: xqkv.NewInput[float32](nil, 9)},
			xqkv.StatusInvalidArgument, "both absent"},
		"empty slice": {xqkv.Forward{Decoder: xqkv.NewInput([]float32{}, 1), Query: query},
			xqkv.StatusInvalidShape, "decoder has 0 elements"},
		"short input": {xqkv.Forward{Decoder: xqkv.NewInput(three, 2), Query: query},
			xqkv.StatusInvalidShape, "decoder has 3 elements"},
		"short view": {xqkv.Forward{Decoder: decoder, Query: xqkv.NewView(three)},
			xqkv.StatusInvalidShape, "query has 3 elements"},
		"short head stride": {xqkv.Forward{Decoder: decoder,
			Query: strided(func(view *xqkv.View) { view.HeadStride = 3 })},
			xqkv.StatusInvalidShape, "need 5"},
		"short width stride": {xqkv.Forward{Decoder: decoder,
			Query: strided(func(view *xqkv.View) { view.WidthStride = 3 })},
			xqkv.StatusInvalidShape, "need 6"},
		"huge stride": {xqkv.Forward{Decoder: decoder,
			Query: strided(func(view *xqkv.View) { view.HeadStride = math.MaxInt })},
			xqkv.StatusInvalidShape, "query has 4 elements"},
		"huge rows": {xqkv.Forward{Decoder: xqkv.NewInput(three, math.MaxInt), Query: query},
			xqkv.StatusInvalidShape, "decoder has 3 elements"},
		"rows that wrap around": {xqkv.Forward{Decoder: wrapping, Query: query},
			xqkv.StatusInvalidShape, "decoder has 3 elements"},
		"negative rows": {xqkv.Forward{Decoder: xqkv.NewInput(three, -1), Query: query},
			xqkv.StatusInvalidArgument, "decoder.rows"},
		"negative stride": {xqkv.Forward{Decoder: decoder,
			Query: strided(func(view *xqkv.View) { view.HeadStride = -2 })},
			xqkv.StatusInvalidStride, "query"},
		"negative layers": {xqkv.Forward{LayerCount: -1, Decoder: decoder, Query: query},
			xqkv.StatusInvalidArgument, "layer_count"},
		"a layer too many": {xqkv.Forward{Layer: 2, Decoder: decoder, Query: query},
			xqkv.StatusLayerOutOfRange, "2"},
		"overlap": {xqkv.Forward{Decoder: xqkv.NewInput(four, 1), Query: query},
			xqkv.StatusOverlap, "query"},
	}
}

func TestRefusedCallsSayWhyAndWriteNothing(t *testing.T) {
	_, projection := small(t)
	for name, refused := range refusals() {
		_, err := projection.Forward(refused.call)
		holdError(t, name, err, refused.status, refused.says)
	}
	query := poisoned(4)
	call := xqkv.Forward{Layer: 7, Decoder: xqkv.NewInput(make([]float32, 3), 1)}
	call.Query = xqkv.NewView(query)
	if _, err := projection.Forward(call); err == nil || !isPoisoned(query) {
		t.Errorf("%v, and %v was written", err, query)
	}
}

func holdError(t *testing.T, name string, err error, status xqkv.Status, says string) {
	t.Helper()
	var failure *xqkv.Error
	if !errors.Is(err, status) || !errors.As(err, &failure) {
		t.Errorf("%s: %v is not %v", name, err, status)
		return
	}
	if failure.Effect != xqkv.EffectNone || !strings.Contains(failure.Message, says) {
		t.Errorf("%s: effect %d, %q does not say %q", name, failure.Effect, failure.Message, says)
	}
}

func TestShortSlicesAreRefusedInEveryPlace(t *testing.T) {
	_, projection := small(t)
	encoder := xqkv.NewInput(make([]float32, 4), 2)
	for name, call := range map[string]xqkv.Forward{
		"encoder has 4 elements": {Encoder: xqkv.NewInput(make([]float32, 4), 3)},
		"key has 3 elements": {Encoder: encoder, Key: xqkv.NewView(make([]float32, 3)),
			Value: xqkv.NewView(make([]float32, 2))},
		"value has 1 elements": {Encoder: encoder, Key: xqkv.NewView(make([]float32, 4)),
			Value: xqkv.NewView(make([]float32, 1))},
		"key has 7 elements": {LayerCount: 2, Encoder: encoder, Key: xqkv.NewView(make([]float32, 7)),
			Value: xqkv.NewView(make([]float32, 4))},
	} {
		_, err := projection.Forward(call)
		holdError(t, name, err, xqkv.StatusInvalidShape, name)
	}
	update := must(projection.Begin())
	defer update.Close()
	err := update.Put(0, xqkv.PartQuery, xqkv.KindWeight, xqkv.NewTensor(make([]float32, 11), 4, 3))
	holdError(t, "tensor", err, xqkv.StatusInvalidShape, "tensor has 11 elements")
}

func TestWrongWeightsAreRefused(t *testing.T) {
	_, projection := small(t)
	update := must(projection.Begin())
	defer update.Close()
	four, halves := make([]float32, 4), make([]xqkv.BFloat16, 12)
	put := func(layer int, part xqkv.Part, kind xqkv.Kind, tensor xqkv.Tensor) error {
		return update.Put(layer, part, kind, tensor)
	}
	holdError(t, "shape", put(0, xqkv.PartQuery, xqkv.KindWeight, xqkv.NewTensor(four, 2, 2)),
		xqkv.StatusInvalidShape, "[2, 2]")
	holdError(t, "dtype", put(0, xqkv.PartQuery, xqkv.KindWeight, xqkv.NewTensor(halves, 4, 3)),
		xqkv.StatusInvalidDtype, "")
	holdError(t, "bias", put(0, xqkv.PartQuery, xqkv.KindBias, xqkv.NewTensor(four, 4, 1)),
		xqkv.StatusInvalidArgument, "bias")
	holdError(t, "layer", put(2, xqkv.PartKey, xqkv.KindWeight, xqkv.NewTensor(four, 2, 2)),
		xqkv.StatusLayerOutOfRange, "2")
	holdError(t, "part", put(0, 9, xqkv.KindWeight, xqkv.NewTensor(four, 2, 2)),
		xqkv.StatusInvalidEnum, "part")
	must(0, put(0, xqkv.PartKey, xqkv.KindWeight, xqkv.NewTensor(four, 2, 2)))
	holdError(t, "twice", put(0, xqkv.PartKey, xqkv.KindWeight, xqkv.NewTensor(four, 2, 2)),
		xqkv.StatusDuplicatePart, "key")
}

func TestWrongSpecsContextsAndCheckpointsAreRefused(t *testing.T) {
	spec := smallSpec
	spec.WeightDtype = 0
	holdError(t, "dtype", spec.Check(), xqkv.StatusInvalidEnum, "weight_dtype")
	spec = smallSpec
	spec.Norm = xqkv.NormRMS
	holdError(t, "norm", spec.Check(), xqkv.StatusInvalidArgument, "norm_epsilon")
	_, err := smallSpec.Cut(xqkv.ProjectionOptions{RankCount: 3})
	holdError(t, "ranks", err, xqkv.StatusIndivisibleHeads, "3")
	_, err = xqkv.Balance(smallSpec, 3, 3)
	holdError(t, "rank", err, xqkv.StatusInvalidArgument, "rank")
	t.Setenv("XQKV_CUDA_LIBRARY", "/nowhere/libcuda.so.1")
	_, err = xqkv.NewContext(xqkv.ContextOptions{Backend: xqkv.BackendCUDA})
	holdError(t, "backend", err, xqkv.StatusLibraryMissing, "libcuda.so.1")
	_, err = xqkv.NewContext(xqkv.ContextOptions{ThreadCount: -1})
	holdError(t, "threads", err, xqkv.StatusInvalidArgument, "thread_count")
	_, err = xqkv.ReadSpec(xqkv.Checkpoint{Directory: "nowhere"})
	holdError(t, "directory", err, xqkv.StatusCheckpointNotFound, "nowhere")
	_, err = xqkv.ReadSpec(xqkv.Checkpoint{})
	holdError(t, "no directory", err, xqkv.StatusNullArgument, "directory")
	_, err = xqkv.ReadSpec(xqkv.Checkpoint{Directory: folders[2] + "\x00/nowhere"})
	holdError(t, "zero byte", err, xqkv.StatusInvalidArgument, "zero byte")
}

func TestErrorsReadAsNameAndMessage(t *testing.T) {
	_, err := xqkv.ReadSpec(xqkv.Checkpoint{Directory: "nowhere"})
	if !strings.HasPrefix(err.Error(), "XQKV_STATUS_CHECKPOINT_NOT_FOUND: ") {
		t.Error(err)
	}
	if errors.Is(err, xqkv.StatusNotReady) || errors.Is(err, xqkv.ErrClosed) {
		t.Errorf("%v is another error too", err)
	}
	if xqkv.StatusPanic.Effect() != xqkv.EffectHandlePoisoned || xqkv.Status(7).Effect() != 0 {
		t.Error("a panic poisons, and 7 is no status")
	}
	if xqkv.Status(7).Error() != "XQKV_STATUS_UNKNOWN" {
		t.Error(xqkv.Status(7))
	}
}
