package xqkv

// #include <xqkv.h>
import "C"

import (
	"errors"
	"fmt"
)

// Status is an xqkv_status; each is an error that errors.Is finds.
type Status int32

// Effect is what a failed call left behind.
type Effect int32

// The statuses that a caller is likely to tell apart; others compare by number.
const (
	NullArgument       Status = C.XQKV_STATUS_NULL_ARGUMENT
	InvalidHandle      Status = C.XQKV_STATUS_INVALID_HANDLE
	InvalidEnum        Status = C.XQKV_STATUS_INVALID_ENUM
	InvalidArgument    Status = C.XQKV_STATUS_INVALID_ARGUMENT
	InvalidStride      Status = C.XQKV_STATUS_INVALID_STRIDE
	Overlap            Status = C.XQKV_STATUS_OVERLAP
	InvalidShape       Status = C.XQKV_STATUS_INVALID_SHAPE
	InvalidDtype       Status = C.XQKV_STATUS_INVALID_DTYPE
	IndivisibleHeads   Status = C.XQKV_STATUS_INDIVISIBLE_HEADS
	LayerOutOfRange    Status = C.XQKV_STATUS_LAYER_OUT_OF_RANGE
	DuplicatePart      Status = C.XQKV_STATUS_DUPLICATE_PART
	NotReady           Status = C.XQKV_STATUS_NOT_READY
	NotSupported       Status = C.XQKV_STATUS_NOT_SUPPORTED
	CheckpointNotFound Status = C.XQKV_STATUS_CHECKPOINT_NOT_FOUND
	CheckpointCorrupt  Status = C.XQKV_STATUS_CHECKPOINT_CORRUPT
)

// The effects.
const (
	EffectNone                 Effect = C.XQKV_EFFECT_NONE
	EffectOutputsUndefined     Effect = C.XQKV_EFFECT_OUTPUTS_UNDEFINED
	EffectCommunicatorPoisoned Effect = C.XQKV_EFFECT_COMMUNICATOR_POISONED
	EffectHandlePoisoned       Effect = C.XQKV_EFFECT_HANDLE_POISONED
)

// Error is the status's name.
func (status Status) Error() string { return C.GoString(C.xqkv_status_name(C.int32_t(status))) }

// Error is a call that failed. errors.Is finds its Status.
type Error struct {
	Status  Status
	Effect  Effect
	Message string
}

func (failure *Error) Error() string {
	return fmt.Sprintf("%s: %s", failure.Status.Error(), failure.Message)
}

// Unwrap is the status.
func (failure *Error) Unwrap() error { return failure.Status }

// ErrClosed is what a closed handle answers.
var ErrClosed = errors.New("xqkv: the handle is closed")

// failed is nil, or the error that the library wrote. It came with the call, so no thread needs to be locked.
func failed(status C.xqkv_status, report *C.xqkv_error) error {
	if status == C.XQKV_STATUS_OK {
		return nil
	}
	effect := Effect(C.xqkv_status_effect(C.int32_t(status)))
	return &Error{Status(status), effect, C.GoString(&report.message[0])}
}
