package xqkv

// #include <xqkv.h>
import "C"

import (
	"runtime"
	"unsafe"
)

// workspace is what memory a call needs.
type workspace struct{ bytes, alignment int }

// workspace asks a plan for calls like this one. cgo checks no more than a field whose address is
// taken in the call itself.
func (frame *frame) workspace(handle *C.xqkv_projection) (workspace, error) {
	var options C.xqkv_plan_options
	C.xqkv_plan_options_init(&options, C.sizeof_xqkv_plan_options)
	options.alignment_bytes = 1
	var plan *C.xqkv_plan
	err := called(func(report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_plan_create(handle, &frame.forward, &options, &plan, report)
	})
	if err != nil {
		return workspace{}, err
	}
	defer C.xqkv_plan_destroy(plan, nil)
	var plain C.xqkv_workspace
	C.xqkv_workspace_init(&plain, C.sizeof_xqkv_workspace)
	err = called(func(report *C.xqkv_error) C.xqkv_status {
		return C.xqkv_plan_get_workspace(plan, &plain, report)
	})
	return workspace{int(plain.minimum_bytes), int(plain.alignment_bytes)}, err
}

// scratch is memory that is used again by later calls.
type scratch []byte

// take is the aligned part of the memory, which grows when it is too small.
func (scratch *scratch) take(sizes workspace, pinner *runtime.Pinner) unsafe.Pointer {
	if needed := sizes.bytes + sizes.alignment; len(*scratch) < needed {
		*scratch = make([]byte, needed)
	}
	first := unsafe.Pointer(unsafe.SliceData(*scratch))
	pinner.Pin(first)
	over := uintptr(first) % uintptr(sizes.alignment)
	return unsafe.Add(first, uintptr(sizes.alignment)-over)
}
