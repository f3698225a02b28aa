package xqkv

import (
	"math"
	"math/bits"
	"runtime"
	"unsafe"
)

// memory is a slice of any element type. The pointer keeps the slice alive.
type memory struct {
	data     unsafe.Pointer
	elements int
	dtype    Dtype
}

func memoryOf[E Element](slice []E) memory {
	return memory{unsafe.Pointer(unsafe.SliceData(slice)), len(slice), dtypeOf[E]()}
}

// pin is the address, which stays where it is until the pinner lets go. cgo demands that of every
// Go pointer inside a struct that C reads ("Passing pointers" in cmd/cgo); the struct itself is an
// argument, which cgo pins. Memory outside Go's heap is left alone, from Go 1.22 on.
func (memory memory) pin(pinner *runtime.Pinner) unsafe.Pointer {
	if memory.data != nil {
		pinner.Pin(memory.data)
	}
	return memory.data
}

// axis is how many there are of something, and how many elements apart.
type axis struct{ extent, stride int }

// ensureHolds refuses a slice that ends before its last element, which the library cannot know.
// Extents and strides that make no sense are the library's to refuse.
func (memory memory) ensureHolds(name string, axes [5]axis) error {
	needed := elementsOf(axes)
	if memory.data == nil || needed <= memory.elements {
		return nil
	}
	return refused(StatusInvalidShape, "%s has %d elements, but its shape and strides (extent, "+
		"stride: %v) need %d; give a longer slice", name, memory.elements, axes, needed)
}

// elementsOf is how many elements there are from the first to the last one; too many to count is
// the largest number.
func elementsOf(axes [5]axis) int {
	last := 0
	for _, axis := range axes {
		if axis.extent == 0 {
			return 0
		}
		if axis.extent > 1 && axis.stride > 0 {
			last = sum(last, product(axis.extent-1, axis.stride))
		}
	}
	return sum(last, 1)
}

func sum(left, right int) int {
	if left > math.MaxInt-right {
		return math.MaxInt
	}
	return left + right
}

// product of two numbers, neither of them negative.
func product(left, right int) int {
	high, low := bits.Mul(uint(left), uint(right))
	if high != 0 || low > math.MaxInt {
		return math.MaxInt
	}
	return int(low)
}
