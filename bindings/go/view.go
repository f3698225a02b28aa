package xqkv

// #include <xqkv.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// View is where one of Q, K and V is written: into a slice that the engine owns, its KV cache, say.
// Strides are in elements, and 0 is packed as [layers, groups, GroupRows, heads, width]; heads are
// this rank's. Elements between those of the view are left untouched.
//
// Row r goes to place p, which is r, or Slots[r]: row p % GroupRows of group p / GroupRows.
type View struct {
	memory
	// layerData has one slice for each layer, instead of memory's, which is the shortest of them.
	layerData                          []unsafe.Pointer
	RowStride, HeadStride, WidthStride int
	// LayerStride is used only when a call spans several layers.
	LayerStride int
	// GroupRows is the rows of one group, such as a sequence of a batch or a page; 0 is all.
	GroupRows, GroupStride int
	// Slots has a place for each row, below SlotCount; -1 leaves the row out. No two rows may go to
	// one place.
	Slots     []int64
	SlotCount int
	// Accumulate adds to what is there. Not with a norm.
	Accumulate bool
}

// NewView is a packed view from the slice's first element on; set strides for another layout.
func NewView[E Element](elements []E) View { return View{memory: memoryOf(elements)} }

// NewLayersView is a view with a slice of its own for each layer of the call.
func NewLayersView[E Element](layers [][]E) View {
	view := View{memory: memoryOf[E](nil)}
	for number, layer := range layers {
		view.layerData = append(view.layerData, unsafe.Pointer(unsafe.SliceData(layer)))
		if number == 0 || len(layer) < view.elements {
			view.elements = len(layer)
		}
	}
	return view
}

// shape is what a view is to hold.
type shape struct{ layers, rows, heads, width int }

func (view *View) fill(to *C.xqkv_view, name string, shape shape, pinner *runtime.Pinner) error {
	if err := view.ensureHolds(name, shape); err != nil {
		return err
	}
	if view.layerData != nil {
		to.layer_data = view.pinLayers(pinner)
	}
	to.data, to.dtype = view.pin(pinner), C.int32_t(view.dtype)
	to.row_stride, to.head_stride = C.int64_t(view.RowStride), C.int64_t(view.HeadStride)
	to.width_stride, to.layer_stride = C.int64_t(view.WidthStride), C.int64_t(view.LayerStride)
	to.group_rows, to.group_stride = C.int64_t(view.GroupRows), C.int64_t(view.GroupStride)
	to.slots, to.slot_count = pinIndices(view.Slots, pinner), C.int64_t(view.SlotCount)
	to.accumulate = flag(view.Accumulate)
	return nil
}

// ensureHolds refuses slices that end before the last of what the library writes or reads of them.
func (view *View) ensureHolds(name string, shape shape) error {
	if view.layerData == nil {
		return view.ensureIndices(name, shape.rows, view.memory.ensureHolds(name, view.axes(shape)))
	}
	if shape.rows > 0 && len(view.layerData) != shape.layers {
		return refused(StatusInvalidShape, "%s has slices for %d layers, and the call has %d; give "+
			"each layer of the call one", name, len(view.layerData), shape.layers)
	}
	shape.layers = 1
	shortest := view.memory
	shortest.data = unsafe.Pointer(unsafe.SliceData(view.layerData))
	return view.ensureIndices(name, shape.rows, shortest.ensureHolds(name, view.axes(shape)))
}

func (view *View) ensureIndices(name string, rows int, err error) error {
	if err == nil && view.Slots != nil && len(view.Slots) != rows {
		return refused(StatusInvalidShape, "%s.Slots has %d places, and the call has %d rows; give "+
			"each row one", name, len(view.Slots), rows)
	}
	return err
}

func (view *View) axes(shape shape) [5]axis {
	groups, rows := view.groups(shape.rows)
	columns := product(shape.heads, shape.width)
	group := product(orPacked(max(view.GroupRows, 0), rows), columns)
	return [5]axis{
		{shape.layers, orPacked(view.LayerStride, product(groups, group))},
		{groups, orPacked(view.GroupStride, group)},
		{rows, orPacked(view.RowStride, columns)},
		{shape.heads, orPacked(view.HeadStride, shape.width)},
		{shape.width, orPacked(view.WidthStride, 1)},
	}
}

// groups is how many groups of how many rows there are places in.
func (view *View) groups(rows int) (int, int) {
	places := rows
	if view.Slots != nil {
		places = view.SlotCount
	}
	if view.GroupRows <= 0 || view.GroupRows >= places {
		return 1, max(places, 0)
	}
	return (places-1)/view.GroupRows + 1, view.GroupRows
}

// pinLayers is the list of the layers' addresses. C reads it and writes behind it, so the list is
// pinned, and what it points to.
func (view *View) pinLayers(pinner *runtime.Pinner) *unsafe.Pointer {
	for _, layer := range view.layerData {
		if layer != nil {
			pinner.Pin(layer)
		}
	}
	first := unsafe.SliceData(view.layerData)
	pinner.Pin(first)
	return first
}
