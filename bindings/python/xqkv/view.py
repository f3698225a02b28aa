"""Where results go."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._abi import xqkv_view
from .arrays import AnyArray, address_of, dtype_of, is_writeable, strides_of

AXES = ("layer", "group", "row", "head", "width")
# What an array without named axes may have; columns are heads and width as one axis.
APART, JOINED = ("row", "head", "width"), ("row", "columns")
PLAIN_AXES: tuple[tuple[str, ...], ...] = (("layer", *APART), APART, ("layer", *JOINED), JOINED)


@dataclass(frozen=True, eq=False)
class View:
    """An output, for what an array alone does not say.

    `data` is an array, or a list of arrays that differ in nothing but their place: one for each layer of the call.

    `axes` names the array's axes, outermost first, out of "layer group row head width". A group is a page, or a
    sequence of a batch, and has the row axis' rows: pages [pages, heads, page_rows, width] are "group head row width".
    "layer" and "group" may be left out. Without `axes` the array has those of a plain output.

    There may be more places than rows: place p is row p % group_rows of group p // group_rows. Row r goes to place r,
    or with `slots`, int64 beside the array or on the host a Python list, to place slots[r]; -1 leaves it out.
    `accumulate` adds to what is there.
    """

    data: Any
    axes: str | None = None
    slots: Any = None
    accumulate: bool = False

    @property
    def is_per_layer(self) -> bool:
        """Whether each layer has an array of its own."""
        return isinstance(self.data, (list, tuple))

    def layers(self) -> Sequence[Any]:
        """Each layer's array, or the one of all layers."""
        return self.data if isinstance(self.data, (list, tuple)) else [self.data]


@dataclass(frozen=True)
class Shape:
    """How many there are of what a call writes."""

    layers: int
    rows: int
    heads: int
    width: int

    def extent(self, axis: str) -> int | None:
        """An axis' extent; None for those that a view may choose."""
        fixed = {"layer": self.layers, "head": self.heads, "width": self.width, "columns": self.heads * self.width}
        return fixed.get(axis)


def plain_shapes(shape: Shape) -> list[tuple[int, ...]]:
    """What an output that is no View may be."""
    chosen = [axes for axes in PLAIN_AXES if axes[0] == "layer" or shape.layers == 1]
    return [tuple(shape.rows if axis == "row" else shape.extent(axis) or 0 for axis in axes) for axes in chosen]


def view_of(
    view: View, arrays: Sequence[AnyArray], slots: AnyArray | None, shape: Shape, name: str
) -> tuple[xqkv_view, object]:
    """The library's view, and what else must stay while it is used."""
    if view.is_per_layer and len(arrays) != shape.layers:
        raise ValueError(f"{name} is {len(arrays)} arrays; the call has {shape.layers} layers")
    _ensure_alike(arrays, name)
    array = arrays[0]
    within = Shape(1, shape.rows, shape.heads, shape.width) if view.is_per_layer else shape
    axes = _axes_of(view.axes, array, within, name)
    extents = dict(zip(axes, array.shape))
    strides = _apart(dict(zip(axes, strides_of(array, name))), shape.width)
    places = extents.get("group", 1) * extents["row"]
    _ensure_room(places, slots, shape.rows, name)
    plain = xqkv_view(dtype=dtype_of(array, name), accumulate=int(view.accumulate))
    for axis, stride in strides.items():
        setattr(plain, f"{axis}_stride", stride)
    if "group" in extents:
        plain.group_rows = extents["row"]
    if slots is not None:
        plain.slots, plain.slot_count = address_of(slots), places
    return plain, _place(plain, arrays, view.is_per_layer)


def _ensure_alike(arrays: Sequence[AnyArray], name: str) -> None:
    first = arrays[0]
    for number, array in enumerate(arrays):
        if (array.shape, array.strides, array.dtype) != (first.shape, first.strides, first.dtype):
            told = f"{array.dtype} {array.shape} with strides {array.strides}"
            raise ValueError(f"{name}[{number}] is {told}; all layers' arrays must be as the first is")
        if not is_writeable(array):
            raise ValueError(f"{name} is read-only")


def _axes_of(named: str | None, array: AnyArray, shape: Shape, name: str) -> tuple[str, ...]:
    if named is None:
        fitting = [axes for axes in PLAIN_AXES if _misfit(axes, array, shape) is None]
        if not fitting:
            wanted = f"one of {plain_shapes(shape)} with any rows"
            raise ValueError(f"{name} is {array.shape}; it must be {wanted}, or name its axes")
        return fitting[0]
    axes = tuple(named.split())
    if not {"row", "head", "width"} <= set(axes) <= set(AXES) or len(set(axes)) != len(axes):
        raise ValueError(f'{name} has axes "{named}"; name row, head and width once, and layer and group at most once')
    misfit = _misfit(axes, array, shape)
    if misfit is not None:
        raise ValueError(f'{name} is {array.shape} with axes "{named}"; {misfit}')
    return axes


def _misfit(axes: tuple[str, ...], array: AnyArray, shape: Shape) -> str | None:
    """Why an array has not these axes, if it has not."""
    if len(axes) != array.ndim:
        return f"that is {len(axes)} axes"
    if "layer" not in axes and shape.layers != 1:
        return f"the call has {shape.layers} layers"
    for axis, extent in zip(axes, array.shape):
        if shape.extent(axis) not in (None, extent):
            return f"{axis} is {extent}, and must be {shape.extent(axis)}"
    return None


def _apart(strides: dict[str, int], width: int) -> dict[str, int]:
    """Columns as heads and width."""
    if "columns" in strides:
        lane = strides.pop("columns") or 1
        strides |= {"head": width * lane, "width": lane}
    return strides


def _ensure_room(places: int, slots: AnyArray | None, rows: int, name: str) -> None:
    if slots is None and places < rows:
        raise ValueError(f"{name} has {places} places for {rows} rows; give more, or slots that leave rows out")
    if slots is not None and slots.shape[0] != rows:
        raise ValueError(f"{name}.slots has {slots.shape[0]} places for {rows} rows; give one for each row")


def _place(plain: xqkv_view, arrays: Sequence[AnyArray], per_layer: bool) -> object:
    """Says where the elements are; gives the list of addresses if that is what says it."""
    if not per_layer:
        plain.data = address_of(arrays[0])
        return None
    addresses = (ctypes.c_void_p * len(arrays))(*map(address_of, arrays))
    plain.layer_data = ctypes.addressof(addresses)
    return addresses
