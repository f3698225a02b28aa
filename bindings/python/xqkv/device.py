"""Arrays in a CUDA device's memory, by __cuda_array_interface__ or DLPack, without copies.

The library works on the stream that a call names. Whoever made an array must have its work ordered before that stream:
an array interface that names a stream of its own is refused unless it is the call's, and DLPack's producer is told the
call's stream, so that it orders itself.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from ._abi import xqkv_dtype

# Element sizes, and the library's names, by the array interface's type text.
TYPES = {"<f4": xqkv_dtype.F32, "<f2": xqkv_dtype.F16}
BYTES = {xqkv_dtype.F32: 4, xqkv_dtype.F16: 2, xqkv_dtype.BF16: 2}

# From dlpack.h: device types that a CUDA device reads, and type codes.
DEVICES = {2: "CUDA", 3: "CUDA host", 13: "CUDA managed"}
FLOAT, BFLOAT = 2, 4


@dataclass(frozen=True)
class DeviceArray:
    """Some memory of a device, and who owns it."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    """In elements."""
    dtype: xqkv_dtype
    is_read_only: bool
    owner: Any

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


def on_device(source: Any, stream: int, name: str) -> DeviceArray | None:
    """The same memory, if it is a CUDA device's; None if it is something else."""
    interface = getattr(source, "__cuda_array_interface__", None)
    if interface is not None:
        return _of_interface(source, interface, stream, name)
    device = getattr(source, "__dlpack_device__", None)
    if device is None or device()[0] not in DEVICES:
        return None
    return _of_capsule(source.__dlpack__(stream=stream or 1), name)


def _of_interface(source: Any, interface: dict[str, Any], stream: int, name: str) -> DeviceArray:
    if interface["typestr"] not in TYPES:
        raise TypeError(f"{name} is {interface['typestr']}; the array interface has '<f4' and '<f2', bfloat16 needs DLPack")
    dtype = TYPES[interface["typestr"]]
    theirs = interface.get("stream")
    # 1 is the legacy default stream, which the library knows as 0.
    if theirs is not None and theirs not in (stream, 1 if stream == 0 else stream):
        raise ValueError(f"{name} is being written on stream {theirs}, the call runs on {stream}; pass stream={theirs}")
    shape = tuple(interface["shape"])
    strides = interface.get("strides")
    elements = _packed(shape) if strides is None else _in_elements(tuple(strides), BYTES[dtype], name)
    address, is_read_only = interface["data"]
    return DeviceArray(address or 0, shape, elements, dtype, bool(is_read_only), source)


def _packed(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def _in_elements(strides: tuple[int, ...], itemsize: int, name: str) -> tuple[int, ...]:
    if any(stride % itemsize for stride in strides):
        raise ValueError(f"{name} has strides {strides}; they must be multiples of {itemsize}")
    return tuple(stride // itemsize for stride in strides)


class _Tensor(ctypes.Structure):
    """DLTensor of dlpack.h."""

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


def _of_capsule(capsule: Any, name: str) -> DeviceArray:
    """A capsule that is not taken over: its producer's deleter runs when the capsule goes, which the array holds."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))
    kinds = {(FLOAT, 32): xqkv_dtype.F32, (FLOAT, 16): xqkv_dtype.F16, (BFLOAT, 16): xqkv_dtype.BF16}
    kind = (tensor.code, tensor.bits)
    if kind not in kinds or tensor.lanes != 1:
        raise TypeError(f"{name} has DLPack type {kind}; use float32, float16 or bfloat16")
    shape = tuple(tensor.shape[: tensor.ndim])
    strides = tuple(tensor.strides[: tensor.ndim]) if tensor.strides else _packed(shape)
    return DeviceArray((tensor.data or 0) + tensor.byte_offset, shape, strides, kinds[kind], False, capsule)
