package xqkv

// #include <xqkv.h>
import "C"

import "math"

// Float16 is an IEEE 754 binary16 in its bits.
type Float16 uint16

// BFloat16 is the upper half of a float32, in its bits.
type BFloat16 uint16

// Element is what arrays are made of.
type Element interface{ float32 | Float16 | BFloat16 }

// Dtype names an element's type.
type Dtype int32

// The dtypes.
const (
	F32  Dtype = C.XQKV_DTYPE_F32
	F16  Dtype = C.XQKV_DTYPE_F16
	BF16 Dtype = C.XQKV_DTYPE_BF16
)

// Float32 widens exactly.
func (element BFloat16) Float32() float32 { return math.Float32frombits(uint32(element) << 16) }

func dtypeOf[E Element]() Dtype {
	var element E
	switch any(element).(type) {
	case Float16:
		return F16
	case BFloat16:
		return BF16
	default:
		return F32
	}
}
