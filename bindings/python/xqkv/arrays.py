"""Arrays as inputs, views and tensors of the library, without copies."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ._abi import xqkv_dtype, xqkv_input, xqkv_layout, xqkv_tensor, xqkv_view
from ._library import initialised
from .device_arrays import DeviceArray, device_array_of, ensure_reachable

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
    if isinstance(array, DeviceArray):
        return array.dtype
    if array.dtype not in DTYPES:
        raise TypeError(f"{name} is {array.dtype}; use float32, float16 or ml_dtypes.bfloat16")
    return DTYPES[array.dtype]


def strides_of(array: AnyArray, name: str) -> list[int]:
    """An array's strides in elements."""
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
    if not is_writeable(output):
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


def tensor_of(source: AnyArray, name: str, layout: int = xqkv_layout.OUT_IN) -> xqkv_tensor:
    """A weight [outputs, inputs], or [inputs, outputs] as its layout says; or a bias [outputs]."""
    strides = strides_of(source, name)
    if source.ndim not in (1, 2) or source.ndim == 2 and strides[1] > 1:
        raise ValueError(f"{name} is {source.shape} with strides {source.strides}; rows must be contiguous")
    tensor = initialised(xqkv_tensor)
    tensor.dtype = dtype_of(source, name)
    tensor.data = address_of(source)
    tensor.rows = source.shape[0]
    tensor.columns = source.shape[1] if source.ndim == 2 else 1
    if source.ndim == 2 and layout == xqkv_layout.IN_OUT:
        tensor.rows, tensor.columns = tensor.columns, tensor.rows
    tensor.row_stride = strides[0]
    tensor.layout = layout
    return tensor
