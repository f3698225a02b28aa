package xqkv

// #include <xqkv.h>
import "C"

import "math"

// Dtype is the type of an element in memory. Zero is none, so that a forgotten one is found.
type Dtype int32

// The dtypes.
const (
	DtypeF32  Dtype = C.XQKV_DTYPE_F32
	DtypeF16  Dtype = C.XQKV_DTYPE_F16
	DtypeBF16 Dtype = C.XQKV_DTYPE_BF16
	// DtypeInt8 is of weights alone: see NewIntegerTensor.
	DtypeInt8 Dtype = C.XQKV_DTYPE_INT8
)

// Bytes of one element, of integers without their scales, or 0 if it is no dtype.
func (dtype Dtype) Bytes() int { return int(C.xqkv_dtype_bytes(C.int32_t(dtype))) }

// String is the dtype's name in include/xqkv.h, or empty if it is no dtype.
func (dtype Dtype) String() string { return C.GoString(C.xqkv_dtype_name(C.int32_t(dtype))) }

// Float16 is an IEEE 754 binary16, in its bits.
type Float16 uint16

// BFloat16 is a bfloat16, the upper half of a float32, in its bits.
type BFloat16 uint16

// Element is what slices are made of.
type Element interface{ float32 | Float16 | BFloat16 }

// Float32 widens exactly.
func (element BFloat16) Float32() float32 { return math.Float32frombits(uint32(element) << 16) }

// Float32 widens exactly.
func (element Float16) Float32() float32 {
	sign, magnitude := uint32(element&0x8000)<<16, uint32(element&0x7fff)
	if magnitude >= 0x7c00 { // infinity and NaN have float32's largest exponent
		return math.Float32frombits(sign | 0x7f800000 | magnitude<<13)
	}
	// The exponent's bias is 15 here and 127 there; multiplying mends denormals too.
	widened := math.Float32frombits(magnitude<<13) * (1 << 112)
	return math.Float32frombits(sign | math.Float32bits(widened))
}

func dtypeOf[E Element]() Dtype {
	var element E
	switch any(element).(type) {
	case Float16:
		return DtypeF16
	case BFloat16:
		return DtypeBF16
	default:
		return DtypeF32
	}
}
