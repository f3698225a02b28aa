package xqkv

// #include <xqkv.h>
import "C"

// Status is what a call answered. Each one but StatusOK is an error that errors.Is finds in the
// errors of this package.
type Status int32

// The statuses; include/xqkv.h says what each one means.
const (
	StatusOK                      Status = C.XQKV_STATUS_OK
	StatusNullArgument            Status = C.XQKV_STATUS_NULL_ARGUMENT
	StatusInvalidStructSize       Status = C.XQKV_STATUS_INVALID_STRUCT_SIZE
	StatusInvalidHandle           Status = C.XQKV_STATUS_INVALID_HANDLE
	StatusInvalidEnum             Status = C.XQKV_STATUS_INVALID_ENUM
	StatusInvalidArgument         Status = C.XQKV_STATUS_INVALID_ARGUMENT
	StatusSizeOverflow            Status = C.XQKV_STATUS_SIZE_OVERFLOW
	StatusInvalidStride           Status = C.XQKV_STATUS_INVALID_STRIDE
	StatusMisaligned              Status = C.XQKV_STATUS_MISALIGNED
	StatusOverlap                 Status = C.XQKV_STATUS_OVERLAP
	StatusInvalidShape            Status = C.XQKV_STATUS_INVALID_SHAPE
	StatusInvalidDtype            Status = C.XQKV_STATUS_INVALID_DTYPE
	StatusIndivisibleHeads        Status = C.XQKV_STATUS_INDIVISIBLE_HEADS
	StatusLayerOutOfRange         Status = C.XQKV_STATUS_LAYER_OUT_OF_RANGE
	StatusDuplicatePart           Status = C.XQKV_STATUS_DUPLICATE_PART
	StatusBufferTooSmall          Status = C.XQKV_STATUS_BUFFER_TOO_SMALL
	StatusWrongMemory             Status = C.XQKV_STATUS_WRONG_MEMORY
	StatusNotReady                Status = C.XQKV_STATUS_NOT_READY
	StatusWorkspaceTooSmall       Status = C.XQKV_STATUS_WORKSPACE_TOO_SMALL
	StatusHandlePoisoned          Status = C.XQKV_STATUS_HANDLE_POISONED
	StatusPlanNeeded              Status = C.XQKV_STATUS_PLAN_NEEDED
	StatusPlanMismatch            Status = C.XQKV_STATUS_PLAN_MISMATCH
	StatusNotSupported            Status = C.XQKV_STATUS_NOT_SUPPORTED
	StatusLibraryMissing          Status = C.XQKV_STATUS_LIBRARY_MISSING
	StatusLibraryUnsuitable       Status = C.XQKV_STATUS_LIBRARY_UNSUITABLE
	StatusNoDevice                Status = C.XQKV_STATUS_NO_DEVICE
	StatusDeviceRefused           Status = C.XQKV_STATUS_DEVICE_REFUSED
	StatusOutOfMemory             Status = C.XQKV_STATUS_OUT_OF_MEMORY
	StatusThreadFailed            Status = C.XQKV_STATUS_THREAD_FAILED
	StatusTooManyHandles          Status = C.XQKV_STATUS_TOO_MANY_HANDLES
	StatusCheckpointNotFound      Status = C.XQKV_STATUS_CHECKPOINT_NOT_FOUND
	StatusCheckpointUnreadable    Status = C.XQKV_STATUS_CHECKPOINT_UNREADABLE
	StatusCheckpointCorrupt       Status = C.XQKV_STATUS_CHECKPOINT_CORRUPT
	StatusCheckpointUnknownFamily Status = C.XQKV_STATUS_CHECKPOINT_UNKNOWN_FAMILY
	StatusCheckpointMissingTensor Status = C.XQKV_STATUS_CHECKPOINT_MISSING_TENSOR
	StatusCheckpointMismatch      Status = C.XQKV_STATUS_CHECKPOINT_MISMATCH
	StatusDeviceFailed            Status = C.XQKV_STATUS_DEVICE_FAILED
	StatusCallbackFailed          Status = C.XQKV_STATUS_CALLBACK_FAILED
	StatusMismatch                Status = C.XQKV_STATUS_MISMATCH
	StatusPeerLost                Status = C.XQKV_STATUS_PEER_LOST
	StatusTimedOut                Status = C.XQKV_STATUS_TIMED_OUT
	StatusCommPoisoned            Status = C.XQKV_STATUS_COMM_POISONED
	StatusPanic                   Status = C.XQKV_STATUS_PANIC
)

// Error is the status's name in include/xqkv.h.
func (status Status) Error() string {
	return C.GoString(C.xqkv_status_name(C.int32_t(status)))
}

// Effect is what a failed call with this status left behind.
func (status Status) Effect() Effect {
	return Effect(C.xqkv_status_effect(C.int32_t(status)))
}

// Effect is what a failed call left behind.
type Effect int32

// The effects; include/xqkv.h says what each one means.
const (
	EffectNone                 Effect = C.XQKV_EFFECT_NONE
	EffectOutputsUndefined     Effect = C.XQKV_EFFECT_OUTPUTS_UNDEFINED
	EffectCommunicatorPoisoned Effect = C.XQKV_EFFECT_COMMUNICATOR_POISONED
	EffectHandlePoisoned       Effect = C.XQKV_EFFECT_HANDLE_POISONED
)
