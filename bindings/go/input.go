package xqkv

// #include <xqkv.h>
import "C"

import "runtime"

// Input is rows of hidden states, the decoder's or the encoder's: packed, of any number of
// sequences, independent of each other. Absent when its slice is nil or Rows is 0.
type Input struct {
	memory
	// Rows is how many.
	Rows int
	// RowStride is elements from one row to the next; 0 is the width of the hidden states.
	RowStride int
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
	if err := input.ensureHolds(name, [4]axis{{1, 1}, {1, 1}, rows, {width, 1}}); err != nil {
		return err
	}
	to.data, to.dtype = input.pin(pinner), C.int32_t(input.dtype)
	to.rows, to.row_stride = C.int64_t(input.Rows), C.int64_t(input.RowStride)
	return nil
}

// orPacked is a stride, 0 being the packed one.
func orPacked(stride, packed int) int {
	if stride == 0 {
		return packed
	}
	return stride
}
