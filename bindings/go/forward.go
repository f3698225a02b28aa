package xqkv

// #include <xqkv.h>
import "C"

import (
	"fmt"
	"runtime"
	"unsafe"
)

// Stats is what one forward did.
type Stats struct {
	MultiplyAdds   int64
	WeightsVersion int64
}

// Array is a slice of any element type with a row stride in elements; 0 is packed. Its zero value is absent.
type Array struct {
	dtype     Dtype
	length    int
	rowStride int
	pin       func(*runtime.Pinner) unsafe.Pointer
}

// Of is a packed array.
func Of[E Element](elements []E) Array { return Strided(elements, 0) }

// Strided is an array whose rows lie so many elements apart.
func Strided[E Element](elements []E, rowStride int) Array {
	pin := func(pinner *runtime.Pinner) unsafe.Pointer { return pinned(pinner, elements) }
	return Array{dtypeOf[E](), len(elements), rowStride, pin}
}

// Forward is one call. An absent Encoder is a decode step, an absent Decoder a cache fill. Outputs are
// [layers, rows, heads, width] of this rank's heads, and are written in place.
type Forward struct {
	Layer, LayerCount        int
	Decoder, Encoder         Array
	DecoderRows, EncoderRows int
	Query, Key, Value        Array
}

func (call Forward) plain(projection *Projection, pinner *runtime.Pinner) (*C.xqkv_forward, error) {
	plain := new(C.xqkv_forward)
	C.xqkv_forward_init(plain, C.sizeof_xqkv_forward)
	layers := max(call.LayerCount, 1)
	plain.layer, plain.layer_count = C.int64_t(call.Layer), C.int64_t(layers)
	spec, shard := projection.spec, projection.shard
	for _, side := range []struct {
		name  string
		from  Array
		to    *C.xqkv_input
		rows  int
		width int
	}{
		{"decoder", call.Decoder, &plain.decoder, call.DecoderRows, spec.DecoderWidth},
		{"encoder", call.Encoder, &plain.encoder, call.EncoderRows, spec.EncoderWidth},
	} {
		if err := side.from.needs(side.name, 1, side.rows, side.width); err != nil {
			return nil, err
		}
		if side.from.length > 0 {
			side.to.data, side.to.dtype = side.from.pin(pinner), C.int32_t(side.from.dtype)
			side.to.rows, side.to.row_stride = C.int64_t(side.rows), C.int64_t(side.from.rowStride)
		}
	}
	for _, output := range []struct {
		name    string
		from    Array
		to      *C.xqkv_view
		rows    int
		columns int
	}{
		{"query", call.Query, &plain.query, call.DecoderRows, shard.QueryColumns},
		{"key", call.Key, &plain.key, call.EncoderRows, shard.KeyColumns},
		{"value", call.Value, &plain.value, call.EncoderRows, shard.ValueColumns},
	} {
		if err := output.from.needs(output.name, layers, output.rows, output.columns); err != nil {
			return nil, err
		}
		if output.from.length > 0 {
			stride := max(output.from.rowStride, output.columns)
			output.to.data, output.to.dtype = output.from.pin(pinner), C.int32_t(output.from.dtype)
			output.to.row_stride = C.int64_t(stride)
			output.to.layer_stride = C.int64_t(output.rows * stride)
		}
	}
	return plain, nil
}

// needs checks that a slice is as long as its shape says, so that the library cannot leave it.
func (array Array) needs(name string, layers, rows, columns int) error {
	if array.length == 0 || rows == 0 || columns == 0 {
		return nil
	}
	stride := max(array.rowStride, columns)
	if rows < 0 || array.rowStride < 0 || array.length < (layers*rows-1)*stride+columns {
		return fmt.Errorf("xqkv: %s has %d elements, %d layers of %d rows of %d columns at stride %d do not fit: %w",
			name, array.length, layers, rows, columns, stride, InvalidShape)
	}
	return nil
}
