"""This rank's shard of Wq, Wk and Wv."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._abi import xqkv_backend, xqkv_forward, xqkv_shard, xqkv_spec, xqkv_stats
from ._library import Handle, call, created, initialised
from .arrays import AnyArray, array_on, input_of, view_of
from .checkpoint import Checkpoint
from .context import Context
from .plan import Plan
from .spec import Split
from .update import Update


@dataclass(frozen=True)
class Result:
    """What a forward wrote, and what it counted. An absent side is None."""

    query: Any
    key: Any
    value: Any
    multiply_adds: int
    weights_version: int
    matmuls: int
    plans_made: int


class Projection(Handle):
    """Any thread may use it, several at once; ctypes lets go of Python's lock while the library works."""

    def __init__(self, context: Context, spec: xqkv_spec, split: Split | None = None, *, flags: int = 0) -> None:
        """`flags` are values of ProjectionFlag, added up."""
        chosen = Split() if split is None else split
        options = ctypes.byref(chosen.with_flags(flags))
        handle = created("xqkv_projection_create", context.handle, ctypes.byref(spec), options)
        super().__init__(handle, "xqkv_projection_destroy")
        self.spec, self._parallel_for = spec, context.parallel_for
        self.device = context.device if context.backend == xqkv_backend.CUDA else None
        self.shard = initialised(xqkv_shard)
        call("xqkv_projection_get_shard", handle, ctypes.byref(self.shard))

    @classmethod
    def load(cls, context: Context, spec: xqkv_spec, checkpoint: Checkpoint, split: Split | None = None) -> Projection:
        """A projection with this rank's weights of a checkpoint."""
        projection = cls(context, spec, split)
        with projection.update() as update:
            update.read(checkpoint)
        return projection

    def update(self) -> Update:
        """Begins a weight transaction."""
        return Update(self)

    @property
    def weights_version(self) -> int:
        """Which commit the weights come from; 0 before the first."""
        version = ctypes.c_int64()
        call("xqkv_projection_get_weights_version", self.handle, ctypes.byref(version))
        return version.value

    def forward(
        self,
        decoder: Any = None,
        encoder: Any = None,
        *,
        query: Any = None,
        key: Any = None,
        value: Any = None,
        layer: int = 0,
        layer_count: int = 1,
        dtype: Any = np.float32,
        stream: int = 0,
        plan: Plan | None = None,
        workspace: tuple[int, int] | None = None,
    ) -> Result:
        """Q from decoder rows if there are any, K and V from encoder rows if there are any.

        Inputs are [rows, width]. Outputs that are not given are made, as [rows, heads, width] of this rank's heads with
        an axis of layers before if there are several; given ones may have any strides, and heads and width as one axis.

        On CUDA outputs must be given, `stream` is a CUstream's address (0 is the default stream), `workspace` the
        address and the bytes of device memory. The call returns before its work is done: keep what it was given.
        """
        shape = Call(self, stream, layer, layer_count)
        shape.take(decoder, encoder, {"query": query, "key": key, "value": value}, dtype)
        shape.plain.stream = stream or None
        shape.plain.plan = None if plan is None else plan.handle
        shape.plain.workspace, shape.plain.workspace_bytes = workspace or (None, 0)
        stats = initialised(xqkv_stats)
        call("xqkv_projection_forward", self.handle, ctypes.byref(shape.plain), ctypes.byref(stats))
        counts = {name: getattr(stats, name) for name in ("multiply_adds", "weights_version", "matmuls", "plans_made")}
        return Result(**shape.outputs, **counts)

    def plan(
        self,
        decoder: Any = None,
        encoder: Any = None,
        *,
        query: Any = None,
        key: Any = None,
        value: Any = None,
        layer: int = 0,
        layer_count: int = 1,
        dtype: Any = np.float32,
        alignment_bytes: int = 0,
        workspace_limit: int = 0,
        is_timed: bool = False,
    ) -> Plan:
        """A plan for calls like this one, with at most as many rows; nothing is read or written."""
        shape = Call(self, None, layer, layer_count)
        shape.take(decoder, encoder, {"query": query, "key": key, "value": value}, dtype)
        return Plan(self, shape.plain, alignment_bytes, workspace_limit, is_timed)

    def heads(self, part: str) -> tuple[int, int]:
        """This rank's heads of a part, and their width."""
        width = self.spec.value_head_width or self.spec.head_width
        if part == "query":
            return self.shard.query_head_count, self.spec.head_width
        return self.shard.key_value_head_count, self.spec.head_width if part == "key" else width


class Call:
    """The struct of one call, with the arrays that it points to."""

    def __init__(self, projection: Projection, stream: int | None, layer: int, layer_count: int) -> None:
        self.projection, self.stream, self.layer_count = projection, stream, layer_count
        self.plain = initialised(xqkv_forward)
        self.plain.layer, self.plain.layer_count = layer, layer_count
        self.inputs: dict[str, AnyArray] = {}
        self.outputs: dict[str, Any] = {"query": None, "key": None, "value": None}

    def take(self, decoder: Any, encoder: Any, outputs: dict[str, Any], dtype: Any) -> None:
        """Fills in both inputs, and the outputs of those that have rows."""
        spec = self.projection.spec
        for name, side, width in (("decoder", decoder, spec.decoder_width), ("encoder", encoder, spec.encoder_width)):
            if side is not None:
                self.inputs[name] = self._array(side, name)
                setattr(self.plain, name, input_of(self.inputs[name], width, name))
        for name, side in (("query", "decoder"), ("key", "encoder"), ("value", "encoder")):
            if side in self.inputs and self.inputs[side].shape[0] > 0:
                self._write(name, self.inputs[side].shape[0], outputs[name], dtype)

    def _write(self, name: str, rows: int, output: Any, dtype: Any) -> None:
        shape = (self.layer_count, rows, *self.projection.heads(name))
        if output is None and self.projection.device is not None:
            raise ValueError(f"{name} is not given; on CUDA outputs are the caller's memory")
        if output is None:
            output = np.empty(shape if self.layer_count > 1 else shape[1:], dtype)
        array = self._array(output, name)
        self.outputs[name] = array if self.projection.device is None else output
        if array.size > 0:
            setattr(self.plain, name, view_of(array, shape, name))

    def _array(self, source: Any, name: str) -> AnyArray:
        return array_on(self.projection.device, source, self.stream, name)
