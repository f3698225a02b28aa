package xqkv

// #include <xqkv.h>
import "C"

import "fmt"

// Error is a call that failed: errors.As finds it, and errors.Is finds its Status.
type Error struct {
	Status  Status
	Effect  Effect
	Message string
}

// Error is what was given, what is needed and what to do, after the status's name.
func (failure *Error) Error() string { return failure.Status.Error() + ": " + failure.Message }

// Unwrap is the status, for errors.Is.
func (failure *Error) Unwrap() error { return failure.Status }

// ErrClosed is what calls on a closed handle answer; it is a StatusInvalidHandle too.
var ErrClosed error = refused(StatusInvalidHandle, "the handle was closed, or never made")

// refused is the error of a call that the binding itself turns down.
func refused(status Status, format string, arguments ...any) error {
	return &Error{status, EffectNone, fmt.Sprintf(format, arguments...)}
}

// failed is nil, or what the library wrote about the failure.
func failed(status C.xqkv_status, report *C.xqkv_error) error {
	if status == C.XQKV_STATUS_OK {
		return nil
	}
	answer := Status(status)
	return &Error{answer, answer.Effect(), C.GoString(&report.message[0])}
}

// called runs a call that writes its own error.
func called(call func(*C.xqkv_error) C.xqkv_status) error {
	report := new(C.xqkv_error)
	return failed(call(report), report)
}
