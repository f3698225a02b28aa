package xqkv

// #include <xqkv.h>
import "C"

import "runtime"

// Extent is whether a tensor is the whole layer's or this rank's.
type Extent int32

// The extents.
const (
	ExtentWhole Extent = C.XQKV_EXTENT_WHOLE
	ExtentShard Extent = C.XQKV_EXTENT_SHARD
)

// Layout is how a weight's elements are ordered.
type Layout int32

// The layouts; this version takes the first only.
const (
	LayoutOutIn Layout = C.XQKV_LAYOUT_OUT_IN
	LayoutInOut Layout = C.XQKV_LAYOUT_IN_OUT
)

// FusedOrder is how the parts of a fused weight follow each other.
type FusedOrder int32

// The orders; this version takes the first only.
const (
	FusedOrderConcatenated FusedOrder = C.XQKV_FUSED_ORDER_CONCATENATED
	FusedOrderPerHead      FusedOrder = C.XQKV_FUSED_ORDER_PER_HEAD
)

// Tensor is a weight or a bias in a slice. It is copied during the call.
type Tensor struct {
	memory
	// Rows are output features, Columns input features; a bias has 1 column.
	Rows, Columns int
	// RowStride is elements from one row to the next; 0 is Columns.
	RowStride int
	Extent    Extent
	// Convert rounds a weight of another dtype than the spec's; otherwise it is refused.
	Convert    bool
	Layout     Layout
	FusedOrder FusedOrder
}

// NewTensor is a whole weight [rows, columns], or a whole bias [rows, 1], packed.
func NewTensor[E Element](elements []E, rows, columns int) Tensor {
	return Tensor{memory: memoryOf(elements), Rows: rows, Columns: columns}
}

func (tensor *Tensor) plain(pinner *runtime.Pinner) (plain C.xqkv_tensor, err error) {
	columns := orPacked(tensor.Columns, 1)
	rows := axis{tensor.Rows, orPacked(tensor.RowStride, columns)}
	if err := tensor.ensureHolds("tensor", [4]axis{{1, 1}, {1, 1}, rows, {columns, 1}}); err != nil {
		return plain, err
	}
	C.xqkv_tensor_init(&plain, C.sizeof_xqkv_tensor)
	plain.data, plain.dtype = tensor.pin(pinner), C.int32_t(tensor.dtype)
	plain.rows, plain.columns = C.int64_t(tensor.Rows), C.int64_t(tensor.Columns)
	plain.row_stride = C.int64_t(tensor.RowStride)
	plain.extent, plain.convert = C.int32_t(tensor.Extent), flag(tensor.Convert)
	plain.layout, plain.fused_order = C.int32_t(tensor.Layout), C.int32_t(tensor.FusedOrder)
	return plain, nil
}
