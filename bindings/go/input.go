package xqkv

// #include <xqkv.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// Input is rows of hidden states, the decoder's or the encoder's: packed, of any number of
// sequences, independent of each other. Absent when its slice is nil or Rows is 0.
type Input struct {
	memory
	// Rows is how many; with a row list, how many it lists.
	Rows int
	// RowStride is elements from one row to the next; 0 is the width of the hidden states.
	RowStride int
	// RowList is the indices of the rows to take of BufferRows, in any order and any number of
	// times; nil takes the first ones.
	RowList    []int64
	BufferRows int
}

// NewInput is rows that follow each other in a slice. They are read during the call only.
func NewInput[E Element](rows []E, count int) Input {
	return Input{memory: memoryOf(rows), Rows: count}
}

// count is how many rows the library sees.
func (input *Input) count() int {
	if input.data == nil {
		return 0
	}
	return input.Rows
}

func (input *Input) fill(to *C.xqkv_input, name string, width int, pinner *runtime.Pinner) error {
	rows := axis{input.count(), orPacked(input.RowStride, width)}
	if input.RowList != nil && input.data != nil {
		rows.extent = input.BufferRows
	}
	if err := input.ensureHolds(name, [5]axis{{1, 1}, {1, 1}, {1, 1}, rows, {width, 1}}); err != nil {
		return err
	}
	if input.RowList != nil && len(input.RowList) != input.count() {
		return refused(StatusInvalidShape, "%s.RowList has %d indices, and Rows is %d; set Rows to "+
			"the list's length", name, len(input.RowList), input.count())
	}
	to.data, to.dtype = input.pin(pinner), C.int32_t(input.dtype)
	to.rows, to.row_stride = C.int64_t(input.Rows), C.int64_t(input.RowStride)
	to.row_list, to.buffer_rows = pinIndices(input.RowList, pinner), C.int64_t(input.BufferRows)
	return nil
}

// pinIndices is a list's address, or nil.
func pinIndices(list []int64, pinner *runtime.Pinner) *C.int64_t {
	first := unsafe.SliceData(list)
	if first != nil {
		pinner.Pin(first)
	}
	return (*C.int64_t)(first)
}

// orPacked is a stride, 0 being the packed one.
func orPacked(stride, packed int) int {
	if stride == 0 {
		return packed
	}
	return stride
}
