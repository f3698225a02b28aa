"""Rows of hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._abi import xqkv_input
from .arrays import AnyArray, address_of, dtype_of, strides_of


@dataclass(frozen=True, eq=False)
class Input:
    """Rows of an array [rows, width], of which `row_list` names those to take, in any order and any number of times:
    an array of int64 beside the rows, or on the host a Python list. Results have one row for each index."""

    data: Any
    row_list: Any = None


def input_of(rows: AnyArray, row_list: AnyArray | None, width: int, name: str) -> xqkv_input:
    """Rows [rows, width], any stride between rows."""
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{name} is {rows.shape}; it must be [rows, {width}]")
    row, lane = strides_of(rows, name)
    if lane > 1:
        raise ValueError(f"{name} has strides {rows.strides}; a row's elements must be next to each other")
    dtype = dtype_of(rows, name)
    plain = xqkv_input(data=address_of(rows), rows=rows.shape[0], row_stride=row, dtype=dtype)
    if row_list is not None:
        plain.rows, plain.buffer_rows = row_list.shape[0], rows.shape[0]
        plain.row_list = address_of(row_list)
    return plain
