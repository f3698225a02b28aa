"""Arrays of other packages as addresses, types and strides, and as tensors of the library, without copies."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ._abi import xqkv_dtype, xqkv_layout, xqkv_tensor
from ._library import initialised
from .device_arrays import INT64, UINT8, DeviceArray, device_array_of, ensure_reachable, packed_strides

Array = NDArray[Any]
AnyArray = Array | DeviceArray
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = {
    np.dtype(np.float32): xqkv_dtype.F32,
    np.dtype(np.float16): xqkv_dtype.F16,
    BFLOAT16: xqkv_dtype.BF16,
}


def as_array(source: Any) -> Array:
    """The same memory as a numpy array: numpy's own, or by DLPack. numpy knows no bfloat16 there, so a tensor of that
    type (torch's, say) is taken as 16-bit integers and read as what it is."""
    if isinstance(source, np.ndarray):
        return source
    if str(getattr(source, "dtype", "")).endswith("bfloat16") and hasattr(source, "view"):
        module = __import__(type(source).__module__.split(".")[0])
        return np.from_dlpack(source.detach().view(module.int16)).view(BFLOAT16)
    return np.from_dlpack(source.detach() if hasattr(source, "detach") else source)


def array_on(device: int | None, source: Any, stream: int | None, name: str) -> AnyArray:
    """The same memory as an array of a CUDA device's, or of the host's where there is none."""
    ensure_reachable(source, device is not None, name)
    return as_array(source) if device is None else device_array_of(source, device, stream, name)


def address_of(array: AnyArray) -> int:
    """Where the first element is."""
    return array.pointer if isinstance(array, DeviceArray) else array.ctypes.data


def is_writeable(array: AnyArray) -> bool:
    """Whether an array may be an output."""
    return array.writeable if isinstance(array, DeviceArray) else array.flags.writeable


def dtype_of(array: AnyArray, name: str) -> xqkv_dtype:
    """The library's name for an array's type."""
    if isinstance(array, DeviceArray) and isinstance(array.dtype, xqkv_dtype):
        return array.dtype
    if isinstance(array, DeviceArray) or array.dtype not in DTYPES:
        raise TypeError(f"{name} is {array.dtype}; use float32, float16 or ml_dtypes.bfloat16")
    return DTYPES[array.dtype]


def indices_on(device: int | None, source: Any, stream: int | None, name: str) -> AnyArray:
    """A list of int64 in a CUDA device's memory or the host's; the host takes a Python list as well."""
    if device is None and isinstance(source, (list, tuple)):
        source = np.array(source, np.int64)
    array = array_on(device, source, stream, name)
    if array.dtype != (np.int64 if isinstance(array, np.ndarray) else INT64):
        raise TypeError(f"{name} is {array.dtype}; it must be int64")
    if array.ndim != 1 or not is_packed(array):
        raise ValueError(f"{name} is {array.shape} with strides {array.strides}; it must be one axis without gaps")
    return array


def bytes_on(device: int | None, source: Any, stream: int | None, name: str) -> AnyArray:
    """Writeable uint8 without gaps in a CUDA device's memory or the host's."""
    array = array_on(device, source, stream, name)
    if array.dtype != (np.uint8 if isinstance(array, np.ndarray) else UINT8):
        raise TypeError(f"{name} is {array.dtype}; it must be uint8")
    if not is_packed(array) or not is_writeable(array):
        raise ValueError(f"{name} has strides {array.strides} or is read-only; it must be writeable and without gaps")
    return array


def is_packed(array: AnyArray) -> bool:
    """Whether an array's elements lie next to each other in row-major order."""
    if isinstance(array, np.ndarray):
        return array.flags.c_contiguous
    return array.size == 0 or array.strides == packed_strides(array.shape, array.itemsize)


def strides_of(array: AnyArray, name: str) -> list[int]:
    """An array's strides in elements."""
    strides = []
    for stride, extent in zip(array.strides, array.shape):
        if extent > 1 and (stride <= 0 or stride % array.itemsize != 0):
            raise ValueError(f"{name} has strides {array.strides}; they must be positive multiples of {array.itemsize}")
        strides.append(stride // array.itemsize if extent > 1 else 0)
    return strides


def tensor_of(source: AnyArray, name: str, layout: int = xqkv_layout.OUT_IN) -> xqkv_tensor:
    """A weight [outputs, inputs], or [inputs, outputs] as its layout says; or a bias [outputs]."""
    strides = strides_of(source, name)
    if source.ndim not in (1, 2) or source.ndim == 2 and strides[1] > 1:
        raise ValueError(f"{name} is {source.shape} with strides {source.strides}; rows must be contiguous")
    tensor = initialised(xqkv_tensor)
    tensor.dtype = xqkv_dtype.INT8 if source.dtype == np.int8 else dtype_of(source, name)
    tensor.data = address_of(source)
    tensor.rows = source.shape[0]
    tensor.columns = source.shape[1] if source.ndim == 2 else 1
    if source.ndim == 2 and layout == xqkv_layout.IN_OUT:
        tensor.rows, tensor.columns = tensor.columns, tensor.rows
    tensor.row_stride = strides[0]
    tensor.layout = layout
    return tensor


def scale_tensor(tensor: xqkv_tensor, scale: Any, name: str) -> np.ndarray:
    """Gives a tensor of integers its scales, one for each output or one for all, and returns the array that they are
    in."""
    given = np.asarray(scale, np.float32) if np.isscalar(scale) else as_array(scale)
    scales = np.ascontiguousarray(given).reshape(-1)
    if scales.size not in (1, tensor.rows):
        raise ValueError(f"{name} is {given.shape}; a weight of {tensor.rows} outputs needs one for each, or one")
    tensor.scale, tensor.scale_dtype = address_of(scales), dtype_of(scales, name)
    tensor.scale_block_rows = 1 if scales.size == tensor.rows else tensor.rows
    tensor.scale_block_columns = tensor.columns
    return scales
