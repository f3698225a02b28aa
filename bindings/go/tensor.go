package xqkv

// #include <xqkv.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// Extent is whether a tensor is the whole layer's or this rank's.
type Extent int32

// The extents.
const (
	ExtentWhole Extent = C.XQKV_EXTENT_WHOLE
	ExtentShard Extent = C.XQKV_EXTENT_SHARD
)

// Layout is how a weight's elements are ordered.
type Layout int32

// The layouts.
const (
	LayoutOutIn Layout = C.XQKV_LAYOUT_OUT_IN
	LayoutInOut Layout = C.XQKV_LAYOUT_IN_OUT
)

// FusedOrder is how the parts of a fused weight follow each other.
type FusedOrder int32

// The orders: all rows of a part, then all of the next; or the rows of each key/value head together.
const (
	FusedOrderConcatenated FusedOrder = C.XQKV_FUSED_ORDER_CONCATENATED
	FusedOrderPerHead      FusedOrder = C.XQKV_FUSED_ORDER_PER_HEAD
)

// Tensor is a weight or a bias in a slice. It is copied during the call.
type Tensor struct {
	memory
	// Rows are output features, Columns input features; a bias has 1 column.
	Rows, Columns int
	// RowStride is elements from one output to the next, and 0 is Columns; with LayoutInOut from one
	// input to the next, and 0 is Rows.
	RowStride int
	Extent    Extent
	// Convert rounds a weight of another dtype than the spec's; otherwise it is refused.
	Convert bool
	// Layout is a weight's; a bias has none.
	Layout     Layout
	FusedOrder FusedOrder
	// Scales are those of integers: one for each output, or one for all.
	Scales []float32
}

// NewTensor is a whole weight [rows, columns], or a whole bias [rows, 1], packed.
func NewTensor[E Element](elements []E, rows, columns int) Tensor {
	return Tensor{memory: memoryOf(elements), Rows: rows, Columns: columns}
}

// NewIntegerTensor is a whole weight [rows, columns] of integers, packed; an element counts as its
// integer times its output's scale, of which there is one for each output or one for all.
func NewIntegerTensor(elements []int8, scales []float32, rows, columns int) Tensor {
	data := memory{unsafe.Pointer(unsafe.SliceData(elements)), len(elements), DtypeInt8}
	return Tensor{memory: data, Rows: rows, Columns: columns, Scales: scales}
}

// scale puts the scales into the struct, which are as many as its outputs, or one.
func (tensor *Tensor) scale(plain *C.xqkv_tensor, pinner *runtime.Pinner) error {
	count := len(tensor.Scales)
	if count == 0 {
		return nil
	}
	if count != 1 && count != tensor.Rows {
		return refused(StatusInvalidShape, "tensor has %d scales and %d rows; give one for each, or one", count, tensor.Rows)
	}
	scales := memoryOf(tensor.Scales)
	plain.scale, plain.scale_dtype = scales.pin(pinner), C.int32_t(scales.dtype)
	plain.scale_block_rows = C.int64_t(max((tensor.Rows+count-1)/count, 1))
	plain.scale_block_columns = C.int64_t(max(tensor.Columns, 1))
	return nil
}

func (tensor *Tensor) plain(kind Kind, pinner *runtime.Pinner) (plain C.xqkv_tensor, err error) {
	far, near := tensor.Rows, orPacked(tensor.Columns, 1)
	if kind == KindWeight && tensor.Layout == LayoutInOut {
		far, near = near, far
	}
	outer := axis{far, orPacked(tensor.RowStride, near)}
	axes := [5]axis{{1, 1}, {1, 1}, {1, 1}, outer, {near, 1}}
	if err := tensor.ensureHolds("tensor", axes); err != nil {
		return plain, err
	}
	C.xqkv_tensor_init(&plain, C.sizeof_xqkv_tensor)
	plain.data, plain.dtype = tensor.pin(pinner), C.int32_t(tensor.dtype)
	plain.rows, plain.columns = C.int64_t(tensor.Rows), C.int64_t(tensor.Columns)
	plain.row_stride = C.int64_t(tensor.RowStride)
	plain.extent, plain.convert = C.int32_t(tensor.Extent), flag(tensor.Convert)
	plain.layout, plain.fused_order = C.int32_t(tensor.Layout), C.int32_t(tensor.FusedOrder)
	return plain, tensor.scale(&plain, pinner)
}
