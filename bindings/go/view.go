package xqkv

// #include <xqkv.h>
import "C"

import "runtime"

// View is where one of Q, K and V is written: into a slice that the engine owns, its KV cache, say.
// Strides are in elements, and 0 is packed as [layers, rows, heads, width], heads being this
// rank's. Elements between those of the view are left untouched.
type View struct {
	memory
	RowStride, HeadStride, WidthStride int
	// LayerStride is used only when a call spans several layers.
	LayerStride int
	// Accumulate adds to what is there. Not in this version.
	Accumulate bool
}

// NewView is a packed view from the slice's first element on; set strides for another layout.
func NewView[E Element](elements []E) View { return View{memory: memoryOf(elements)} }

// shape is what a view is to hold.
type shape struct{ layers, rows, heads, width int }

func (view *View) fill(to *C.xqkv_view, name string, shape shape, pinner *runtime.Pinner) error {
	if err := view.ensureHolds(name, view.axes(shape)); err != nil {
		return err
	}
	to.data, to.dtype = view.pin(pinner), C.int32_t(view.dtype)
	to.row_stride, to.head_stride = C.int64_t(view.RowStride), C.int64_t(view.HeadStride)
	to.width_stride, to.layer_stride = C.int64_t(view.WidthStride), C.int64_t(view.LayerStride)
	to.accumulate = flag(view.Accumulate)
	return nil
}

func (view *View) axes(shape shape) [4]axis {
	columns := product(shape.heads, shape.width)
	return [4]axis{
		{shape.layers, orPacked(view.LayerStride, product(shape.rows, columns))},
		{shape.rows, orPacked(view.RowStride, columns)},
		{shape.heads, orPacked(view.HeadStride, shape.width)},
		{shape.width, orPacked(view.WidthStride, 1)},
	}
}
