package xqkv_test

import (
	"math"
	"testing"

	xqkv "github.com/xqkv/xqkv/bindings/go"
)

// widenedExactly reads a half of these fields by the definition of its format.
func widenedExactly(bits, fraction, bias int) float64 {
	sign := float64(1 - bits>>15*2)
	exponent, mantissa := bits&0x7fff>>fraction, bits&(1<<fraction-1)
	switch largest := 0x7fff >> fraction; {
	case exponent == largest && mantissa != 0:
		return math.NaN()
	case exponent == largest:
		return math.Inf(int(sign))
	case exponent == 0:
		return sign * math.Ldexp(float64(mantissa), 1-bias-fraction)
	default:
		return sign * math.Ldexp(float64(mantissa+1<<fraction), exponent-bias-fraction)
	}
}

func TestEveryHalfWidensExactly(t *testing.T) {
	for bits := 0; bits < 1<<16; bits++ {
		brain, half := xqkv.BFloat16(bits).Float32(), xqkv.Float16(bits).Float32()
		holdHalf(t, "bf16", bits, brain, widenedExactly(bits, 7, 127))
		holdHalf(t, "f16", bits, half, widenedExactly(bits, 10, 15))
	}
}

func holdHalf(t *testing.T, name string, bits int, widened float32, expected float64) {
	t.Helper()
	if math.IsNaN(expected) {
		if widened == widened {
			t.Errorf("%s %#x is %g, not NaN", name, bits, widened)
		}
	} else if math.Float32bits(widened) != math.Float32bits(float32(expected)) {
		t.Errorf("%s %#x is %g, not %g", name, bits, widened, expected)
	}
}
