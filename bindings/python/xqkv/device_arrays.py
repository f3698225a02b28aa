"""Arrays in a CUDA device's memory, by __cuda_array_interface__ and by DLPack, without copies and without waiting."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

from ._abi import xqkv_dtype

# Types of indices and of workspace, which have no xqkv_dtype.
INT64, UINT8 = "int64", "uint8"
DeviceDtype = xqkv_dtype | str
INTERFACE_DTYPES: dict[str, DeviceDtype] = {
    "<f4": xqkv_dtype.F32, "<f2": xqkv_dtype.F16, "<i8": INT64, "|u1": UINT8,
}  # fmt: skip
ELEMENT_BYTES: dict[DeviceDtype, int] = {
    xqkv_dtype.F32: 4, xqkv_dtype.F16: 2, xqkv_dtype.BF16: 2, INT64: 8, UINT8: 1,
}  # fmt: skip
# DLPack's type codes with their bits, and its devices (dlpack.h).
DLPACK_DTYPES: dict[tuple[int, int], DeviceDtype] = {
    (2, 32): xqkv_dtype.F32, (2, 16): xqkv_dtype.F16, (4, 16): xqkv_dtype.BF16, (0, 64): INT64, (1, 8): UINT8,
}  # fmt: skip
CUDA, CUDA_HOST, CUDA_MANAGED = 2, 3, 13
DEVICE_KINDS = (CUDA, CUDA_HOST, CUDA_MANAGED)
READ_ONLY = 1


@dataclass(frozen=True)
class DeviceArray:
    """Where elements lie in a device's memory; strides are in bytes, as numpy's. `owner` keeps them alive."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: DeviceDtype
    writeable: bool
    owner: Any = field(repr=False)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def itemsize(self) -> int:
        return ELEMENT_BYTES[self.dtype]

    @property
    def size(self) -> int:
        elements = 1
        for extent in self.shape:
            elements *= extent
        return elements


def ensure_reachable(source: Any, on_device: bool, name: str) -> None:
    """Refuses host memory where a device's is needed, and the reverse. Managed and pinned memory is both."""
    kind = _kind(source)
    if on_device and kind is None:
        raise TypeError(f"{name} is in host memory, and the context is CUDA's; copy it to the device")
    if not on_device and kind == CUDA:
        raise TypeError(f"{name} is in CUDA memory, and the context is the host's; copy it to the host")


def is_from_device(source: Any) -> bool:
    """Whether an object is in a device's own memory; pinned memory is read as the host's."""
    return _kind(source) in (CUDA, CUDA_MANAGED)


def _kind(source: Any) -> int | None:
    """Which memory of DLPack's an object is in, or None for the host's."""
    if hasattr(source, "__dlpack_device__"):
        kind = int(source.__dlpack_device__()[0])
        return kind if kind in DEVICE_KINDS else None
    return CUDA if isinstance(source, DeviceArray) or hasattr(source, "__cuda_array_interface__") else None


def device_array_of(source: Any, device: int, stream: int | None, name: str) -> DeviceArray:
    """The same memory described. What the producer has under way is ordered before `stream` by DLPack itself; the
    array interface can only name a stream, so one that differs from the call's is refused. Without a stream (None)
    nothing is ordered, and the producer's work must be done."""
    if isinstance(source, DeviceArray):
        return source
    if hasattr(source, "detach"):
        source = source.detach()
    if hasattr(source, "__dlpack_device__"):
        return _by_dlpack(source, device, stream, name)
    return _by_interface(source, stream, name)


def packed_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of row-major elements without gaps."""
    strides = []
    for extent in reversed(shape):
        strides.append(itemsize)
        itemsize *= extent
    return tuple(reversed(strides))


def _by_interface(source: Any, stream: int | None, name: str) -> DeviceArray:
    interface = source.__cuda_array_interface__
    if interface["typestr"] not in INTERFACE_DTYPES:
        raise TypeError(f"{name} is {interface['typestr']}; use <f4 or <f2, or bfloat16 by DLPack")
    if interface.get("mask") is not None:
        raise ValueError(f"{name} has a mask, which no projection takes")
    _hold_stream(interface, stream, name)
    dtype, shape = INTERFACE_DTYPES[interface["typestr"]], tuple(interface["shape"])
    strides = interface.get("strides") or packed_strides(shape, ELEMENT_BYTES[dtype])
    pointer, read_only = interface["data"]
    return DeviceArray(int(pointer or 0), shape, tuple(strides), dtype, not read_only, source)


def _hold_stream(interface: Any, stream: int | None, name: str) -> None:
    """Version 3 names the stream that the elements are written on: 0 is not allowed, None asks for nothing."""
    produced = interface.get("stream") if interface.get("version", 0) >= 3 else None
    if produced is None:
        return
    if produced == 0:
        raise ValueError(f"{name} names stream 0, which the array interface leaves without a meaning")
    if stream is None or produced != (stream or 1):
        raise ValueError(f"{name} is written on stream {produced}; run the call there, or wait and export it without")


def _by_dlpack(source: Any, device: int, stream: int | None, name: str) -> DeviceArray:
    kind, number = source.__dlpack_device__()
    if int(kind) != CUDA_HOST and int(number) != device:
        raise ValueError(f"{name} is on device {number}, and the context on device {device}")
    # DLPack's numbers: 1 is the legacy default stream, -1 asks for no order; pinned memory has no stream.
    wanted = {} if int(kind) == CUDA_HOST else {"stream": -1 if stream is None else stream or 1}
    try:
        capsule = source.__dlpack__(max_version=(1, 0), **wanted)
    except TypeError:
        capsule = source.__dlpack__(**wanted)
    return _of_capsule(capsule, source, name)


class _Tensor(ctypes.Structure):
    """dlpack.h's DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Versioned(ctypes.Structure):
    """dlpack.h's DLManagedTensorVersioned; without a version the tensor comes first of all."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.restype, _pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.restype, _is_valid.argtypes = ctypes.c_int, [ctypes.py_object, ctypes.c_char_p]


def _of_capsule(capsule: Any, source: Any, name: str) -> DeviceArray:
    """Reads a capsule and leaves it as it is: unconsumed, it gives the tensor back when it goes with the array."""
    writeable = True
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = _Versioned.from_address(_pointer_of(capsule, b"dltensor_versioned") or 0)
        if versioned.major != 1:
            raise ValueError(f"{name} speaks DLPack {versioned.major}.{versioned.minor}; version 1 is understood")
        tensor, writeable = versioned.tensor, not versioned.flags & READ_ONLY
    else:
        tensor = _Tensor.from_address(_pointer_of(capsule, b"dltensor") or 0)
    if tensor.lanes != 1 or (tensor.code, tensor.bits) not in DLPACK_DTYPES:
        raise TypeError(f"{name} has DLPack type {tensor.code} of {tensor.bits} bits; use float32, float16 or bfloat16")
    dtype = DLPACK_DTYPES[tensor.code, tensor.bits]
    itemsize = ELEMENT_BYTES[dtype]
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = packed_strides(shape, itemsize)
    if tensor.strides:
        strides = tuple(stride * itemsize for stride in tensor.strides[: tensor.ndim])
    pointer = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(pointer, shape, strides, dtype, writeable, (capsule, source))
