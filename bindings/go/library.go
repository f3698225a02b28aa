// Package xqkv is the tensor-parallel projection of encoder/decoder cross-attention: Q from the
// decoder's hidden states whenever there are any, K and V from the encoder's whenever there are
// any. It binds the xqkv shared library; include/xqkv.h is the manual, and names here follow it:
// XQKV_STATUS_NOT_READY is StatusNotReady, xqkv_spec_check is Spec.Check.
//
// Slices go in and out without copies: they are pinned for the length of one call. An error comes
// with the call that failed, so a goroutine may change its thread between two calls.
package xqkv

/*
#cgo CFLAGS: -I${SRCDIR}/../../include
#include <xqkv.h>
*/
import "C"

// flag is a yes or no as the library takes it.
func flag(yes bool) C.int32_t {
	if yes {
		return 1
	}
	return 0
}
