package xqkv

// #include <xqkv.h>
import "C"

import (
	"runtime"
	"sync"
)

// Forward is one call. Three fall out of the two inputs: a decode step has no Encoder and runs Q, a
// prefill has both and runs Q, K and V, a cache fill has no Decoder and runs K and V, of one layer
// or of many. An input that is absent needs no view.
type Forward struct {
	// Layer is the first layer, numbered as in Spec.
	Layer int
	// LayerCount is how many layers run on the same encoder rows; 0 is 1.
	LayerCount int
	// Decoder is [rows, decoder width], Encoder [rows, encoder width].
	Decoder, Encoder Input
	// Query is [decoder rows, query heads, head width].
	Query View
	// Key and Value are [layers, encoder rows, key/value heads, width].
	Key, Value View
}

// frame is the C structs of one call, and what they point to. cgo lets its arguments escape to the
// heap, so frames are used again instead of being allocated for each call.
type frame struct {
	forward C.xqkv_forward
	stats   C.xqkv_stats
	report  C.xqkv_error
	pinner  runtime.Pinner
	scratch scratch
}

var frames = sync.Pool{New: func() any {
	return &frame{forward: blankForward, stats: blankStats}
}}

var blankForward = func() (plain C.xqkv_forward) {
	C.xqkv_forward_init(&plain, C.sizeof_xqkv_forward)
	return
}()

// Forward projects Q from decoder rows if there are any, K and V from encoder rows if there are
// any, and nothing else. It is done when it returns, and allocates nothing (Go 1.21: 8 bytes), but
// for a call with slots, row lists or slices for layers.
func (projection *Projection) Forward(call Forward) (Stats, error) {
	frame := frames.Get().(*frame)
	defer frame.release()
	err := projection.owner.use(func(handle *C.xqkv_projection) error {
		if err := call.fill(&frame.forward, projection, &frame.pinner); err != nil {
			return err
		}
		if call.hasSlots() {
			if err := frame.lend(handle); err != nil {
				return err
			}
		}
		status := C.xqkv_projection_forward(handle, &frame.forward, &frame.stats, &frame.report)
		return failed(status, &frame.report)
	})
	if err != nil {
		return Stats{}, err
	}
	return statsOf(&frame.stats), nil
}

// release forgets the caller's memory, so that the pool does not keep it alive.
func (frame *frame) release() {
	frame.pinner.Unpin()
	frame.forward = blankForward
	frames.Put(frame)
}

// lend gives the call memory for the check of its slots.
func (frame *frame) lend(handle *C.xqkv_projection) error {
	sizes, err := frame.workspace(handle)
	if err != nil {
		return err
	}
	plain := &frame.forward
	plain.workspace = frame.scratch.take(sizes, &frame.pinner)
	plain.workspace_bytes = C.int64_t(sizes.bytes)
	return nil
}

// hasSlots tells whether rows of an output go to places of their own.
func (call *Forward) hasSlots() bool {
	return call.Query.Slots != nil || call.Key.Slots != nil || call.Value.Slots != nil
}

func (call *Forward) fill(plain *C.xqkv_forward, on *Projection, pinner *runtime.Pinner) error {
	plain.layer, plain.layer_count = C.int64_t(call.Layer), C.int64_t(call.LayerCount)
	if err := call.Decoder.fill(&plain.decoder, "decoder", on.decoderWidth, pinner); err != nil {
		return err
	}
	if err := call.Encoder.fill(&plain.encoder, "encoder", on.encoderWidth, pinner); err != nil {
		return err
	}
	layers, encoderRows := orPacked(call.LayerCount, 1), call.Encoder.count()
	query := shape{layers, call.Decoder.count(), on.shard.QueryHeadCount, on.keyWidth}
	if err := call.Query.fill(&plain.query, "query", query, pinner); err != nil {
		return err
	}
	key := shape{layers, encoderRows, on.shard.KeyValueHeadCount, on.keyWidth}
	if err := call.Key.fill(&plain.key, "key", key, pinner); err != nil {
		return err
	}
	value := shape{layers, encoderRows, on.shard.KeyValueHeadCount, on.valueWidth}
	return call.Value.fill(&plain.value, "value", value, pinner)
}
