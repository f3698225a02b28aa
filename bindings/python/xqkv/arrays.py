"""Arrays as inputs, views and tensors of the library, without copies."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ._abi import xqkv_dtype, xqkv_input, xqkv_tensor, xqkv_view
from ._library import initialised
from .device import DeviceArray, on_device

Array = NDArray[Any]
AnyArray = NDArray[Any] | DeviceArray
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


def placed(source: Any, is_cuda: bool, stream: int, name: str) -> AnyArray:
    """The same memory as the backend's kind of array; memory of the other kind is refused."""
    found = on_device(source, stream, name)
    if is_cuda and found is None:
        raise TypeError(f"{name} is in host memory, but the context is on CUDA; pass an array of the device's")
    if not is_cuda and found is not None:
        raise TypeError(f"{name} is in a device's memory, but the context is on the host; pass a host array")
    return as_array(source) if found is None else found


def address_of(array: AnyArray) -> int:
    """The first element."""
    return array.address if isinstance(array, DeviceArray) else array.ctypes.data


def dtype_of(array: AnyArray, name: str) -> xqkv_dtype:
    """The library's name for an array's type."""
    if isinstance(array, DeviceArray):
        return array.dtype
    if array.dtype not in DTYPES:
        raise TypeError(f"{name} is {array.dtype}; use float32, float16 or ml_dtypes.bfloat16")
    return DTYPES[array.dtype]


def strides_of(array: AnyArray, name: str) -> list[int]:
    """An array's strides in elements."""
    if isinstance(array, DeviceArray):
        return [stride if extent > 1 else 0 for stride, extent in zip(array.strides, array.shape)]
    strides = []
    for stride, extent in zip(array.strides, array.shape):
        if extent > 1 and (stride < 0 or stride % array.itemsize != 0):
            raise ValueError(f"{name} has strides {array.strides}; they must be positive multiples of {array.itemsize}")
        strides.append(stride // array.itemsize if extent > 1 else 0)
    return strides


def input_of(rows: AnyArray, width: int, name: str) -> xqkv_input:
    """Rows [rows, width], any stride between rows."""
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{name} is {rows.shape}; it must be [rows, {width}]")
    row, lane = strides_of(rows, name)
    if lane > 1:
        raise ValueError(f"{name} has strides {rows.strides}; a row's elements must be next to each other")
    dtype = dtype_of(rows, name)
    return xqkv_input(data=address_of(rows), rows=rows.shape[0], row_stride=row, dtype=dtype)


def view_of(output: AnyArray, shape: tuple[int, int, int, int], name: str) -> xqkv_view:
    """An output [layers, rows, heads, width], without layers if they are one, or with heads and width as one axis."""
    layers, rows, heads, width = shape
    apart: list[tuple[int, ...]] = [shape]
    joined: list[tuple[int, ...]] = [(layers, rows, heads * width)]
    if layers == 1:
        apart, joined = [shape, shape[1:]], [joined[0], joined[0][1:]]
    if output.shape not in [*apart, *joined]:
        raise ValueError(f"{name} is {output.shape}; it must be one of {[*apart, *joined]}")
    if output.is_read_only if isinstance(output, DeviceArray) else not output.flags.writeable:
        raise ValueError(f"{name} is read-only")
    strides = strides_of(output, name)
    if output.shape not in apart:
        lane = strides.pop() or 1
        strides += [width * lane, lane]
    layer, row, head, lane = [0] * (4 - len(strides)) + strides
    dtype = dtype_of(output, name)
    return xqkv_view(
        data=address_of(output), dtype=dtype, layer_stride=layer, row_stride=row, head_stride=head, width_stride=lane
    )


def tensor_of(source: AnyArray, name: str) -> xqkv_tensor:
    """A weight [outputs, inputs] or a bias [outputs]."""
    strides = strides_of(source, name)
    if source.ndim not in (1, 2) or source.ndim == 2 and strides[1] > 1:
        raise ValueError(f"{name} is {source.shape} with strides {source.strides}; rows must be contiguous")
    tensor = initialised(xqkv_tensor)
    tensor.dtype = dtype_of(source, name)
    tensor.data = address_of(source)
    tensor.rows = source.shape[0]
    tensor.columns = source.shape[1] if source.ndim == 2 else 1
    tensor.row_stride = strides[0]
    return tensor
