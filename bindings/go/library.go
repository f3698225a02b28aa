// Package xqkv is tensor-parallel cross-attention Q, K, V projection over the xqkv C library.
//
// Build with CGO_LDFLAGS="-L<folder of libxqkv.so> -lxqkv". Slices go in and out without copies: they are pinned for the
// length of one call. See include/xqkv.h for what each call promises; names are the same here.
package xqkv

/*
#cgo CFLAGS: -I${SRCDIR}/../../include
#include <stdlib.h>
#include <xqkv.h>
*/
import "C"

import (
	"runtime"
	"unsafe"
)

// HandleCount tells how many handles are alive in this process.
func HandleCount() int64 { return int64(C.xqkv_handle_count()) }

// Version is the library's version.
func Version() string { return C.GoString(C.xqkv_version_string()) }

// forget closes a handle that was dropped without Close, which is a leak of the caller's.
func forget[T interface{ Close() error }](handle T) {
	runtime.SetFinalizer(handle, func(dropped T) { _ = dropped.Close() })
}

// pinned is the address of a slice's first element, which stays where it is until the pinner lets go. cgo demands it for
// each Go pointer inside a C struct (cmd/cgo, "Passing pointers").
func pinned[T any](pinner *runtime.Pinner, slice []T) unsafe.Pointer {
	if len(slice) == 0 {
		return nil
	}
	pinner.Pin(&slice[0])
	return unsafe.Pointer(&slice[0])
}

// flag is a yes or no as the library takes it.
func flag(yes bool) C.int32_t {
	if yes {
		return 1
	}
	return 0
}
