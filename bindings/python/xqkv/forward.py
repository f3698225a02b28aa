"""The struct of one call, filled in from arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ._abi import xqkv_forward, xqkv_forward_flag, xqkv_projection_flag, xqkv_workspace
from ._library import initialised
from .arrays import AnyArray, Array, address_of, array_on, bytes_on, indices_on
from .input import Input, input_of
from .view import Shape, View, plain_shapes, view_of

if TYPE_CHECKING:
    from .projection import Projection


@dataclass(frozen=True)
class Ranks:
    """What a call asks of other ranks; by default nothing."""

    gather_query: bool = False
    gather_key_value: bool = False
    encoder_rank_rows: Sequence[int] | None = None
    chunk_rows: int = 0

    def are_gathered(self, part: str) -> bool:
        """Whether an output has all ranks' heads."""
        return self.gather_query if part == "query" else self.gather_key_value


class Call:
    """The struct of one call, with the arrays that it points to."""

    def __init__(
        self, projection: Projection, stream: int | None, layer: int, layer_count: int, ranks: Ranks
    ) -> None:
        self.projection, self.stream, self.layer_count, self.ranks = projection, stream, layer_count, ranks
        self.device = projection.device
        self.plain = initialised(xqkv_forward)
        self.plain.layer, self.plain.layer_count = layer, layer_count
        self.outputs: dict[str, Any] = {"query": None, "key": None, "value": None}
        self._rows: dict[str, int] = {}
        self._kept: list[object] = []

    def take(self, decoder: Any, encoder: Any, outputs: dict[str, Any], dtype: Any) -> None:
        """Fills in both inputs, and the outputs of those that have rows."""
        spec = self.projection.spec
        for name, side, width in (("decoder", decoder, spec.decoder_width), ("encoder", encoder, spec.encoder_width)):
            if side is not None:
                self._read(name, side, width)
        self._ask()
        for name, side in (("query", "decoder"), ("key", "encoder"), ("value", "encoder")):
            if self._rows.get(side, 0) > 0:
                self._write(name, self._rows[side], outputs[name], dtype)

    @property
    def has_slots(self) -> bool:
        """Whether rows of an output go to places of their own."""
        return any(getattr(self.plain, name).slots for name in self.outputs)

    @property
    def has_transfers(self) -> bool:
        """Whether ranks tell each other anything in it."""
        shares = self.projection.flags & xqkv_projection_flag.SHARE_REPLICAS
        return bool(self.plain.flags or self.plain.encoder_rank_rows or shares)

    def lend(self, workspace: Any) -> None:
        """Takes an array of bytes, or an address and how many there are, as the call's workspace."""
        if isinstance(workspace, tuple):
            self.plain.workspace, self.plain.workspace_bytes = workspace
        elif workspace is not None:
            array = self._keep(bytes_on(self.device, workspace, self.stream, "workspace"))
            self.plain.workspace, self.plain.workspace_bytes = address_of(array), array.size

    def _read(self, name: str, side: Any, width: int) -> None:
        given = side if isinstance(side, Input) else Input(side)
        rows, row_list = self._array(given.data, name), self._indices(given.row_list, f"{name}.row_list")
        plain = input_of(rows, row_list, width, name)
        self._rows[name] = plain.rows
        setattr(self.plain, name, plain)

    def _ask(self) -> None:
        """What the call asks of other ranks, whose rows of the encoder it then has as well."""
        flags, ranks = xqkv_forward_flag, self.ranks
        self.plain.flags |= flags.GATHER_QUERY * ranks.gather_query | flags.GATHER_KEY_VALUE * ranks.gather_key_value
        self.plain.chunk_rows = ranks.chunk_rows
        if ranks.encoder_rank_rows is not None:
            if "encoder" not in self._rows:
                raise ValueError("encoder is None; a rank without rows brings [0, width] of the other ranks' dtype")
            rows = self._keep(np.asarray(ranks.encoder_rank_rows, np.int64))
            self._rows["encoder"] = sum(ranks.encoder_rank_rows)
            self.plain.encoder_rank_rows = address_of(rows)

    def _write(self, name: str, rows: int, output: Any, dtype: Any) -> None:
        shape = Shape(self.layer_count, rows, *self.projection.heads(name, self.ranks.are_gathered(name)))
        if output is None:
            output = self._made(name, shape, dtype)
        view = output if isinstance(output, View) else View(output)
        arrays = [self._array(one, name) for one in view.layers()]
        self.outputs[name] = output
        if not isinstance(output, (View, list, tuple)):
            self._ensure_plain(arrays[0], shape, name)
            self.outputs[name] = arrays[0] if self.device is None else output
        if all(array.size > 0 for array in arrays):
            plain, addresses = view_of(view, arrays, self._indices(view.slots, f"{name}.slots"), shape, name)
            self._kept.append(addresses)
            setattr(self.plain, name, plain)

    def _made(self, name: str, shape: Shape, dtype: Any) -> Array:
        if self.device is not None:
            raise ValueError(f"{name} is not given; on CUDA outputs are the caller's memory")
        layers = (shape.layers,) if shape.layers > 1 else ()
        return np.empty((*layers, shape.rows, shape.heads, shape.width), dtype)

    def _ensure_plain(self, array: AnyArray, shape: Shape, name: str) -> None:
        """An array that is no view has exactly the call's rows."""
        if array.shape not in plain_shapes(shape):
            raise ValueError(f"{name} is {array.shape}; it must be one of {plain_shapes(shape)}, or an xqkv.View")

    def _indices(self, source: Any, name: str) -> AnyArray | None:
        if source is None:
            return None
        return self._keep(indices_on(self.device, source, self.stream, name))

    def _array(self, source: Any, name: str) -> AnyArray:
        return self._keep(array_on(self.device, source, self.stream, name))

    def _keep(self, array: AnyArray) -> AnyArray:
        self._kept.append(array)
        return array


def host_workspace(sizes: xqkv_workspace) -> Array | None:
    """Host memory of the least size, aligned as asked; None if none is needed."""
    if sizes.minimum_bytes == 0:
        return None
    memory = np.empty(sizes.minimum_bytes + sizes.alignment_bytes, np.uint8)
    first = -memory.ctypes.data % sizes.alignment_bytes
    return memory[first : first + sizes.minimum_bytes]
