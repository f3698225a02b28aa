"""This rank's shard of Wq, Wk and Wv."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._abi import xqkv_backend, xqkv_forward, xqkv_shard, xqkv_spec, xqkv_stats
from ._library import Handle, call, created, initialised
from .arrays import AnyArray, input_of, placed, view_of
from .checkpoint import Checkpoint
from .context import Context
from .plan import Plan
from .spec import Split
from .update import Update


@dataclass(frozen=True)
class Result:
    """What a forward wrote, and what it counted. An absent side is None."""

    query: AnyArray | None
    key: AnyArray | None
    value: AnyArray | None
    multiply_adds: int
    weights_version: int


class Projection(Handle):
    """Any thread may use it, several at once; ctypes lets go of Python's lock while the library works."""

    def __init__(self, context: Context, spec: xqkv_spec, split: Split | None = None) -> None:
        options = None if split is None else ctypes.byref(split.plain)
        handle = created("xqkv_projection_create", context.handle, ctypes.byref(spec), options)
        super().__init__(handle, "xqkv_projection_destroy")
        self.spec = spec
        self._is_cuda = context.backend == xqkv_backend.CUDA
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
        workspace: tuple[int, int] = (0, 0),
    ) -> Result:
        """Q from decoder rows if there are any, K and V from encoder rows if there are any.

        Inputs are [rows, width]. Outputs that are not given are made, as [rows, heads, width] of this rank's heads with
        an axis of layers before if there are several; given ones may have any strides, and heads and width as one axis.

        On CUDA all arrays are the device's, outputs must be given, and the work is put on `stream` (a CUstream as a
        number; 0 is the default stream). `workspace` is an address and its bytes.
        """
        forward, outputs = self._call(decoder, encoder, (query, key, value), (layer, layer_count), dtype, stream)
        forward.plan = None if plan is None else plan.handle
        forward.workspace, forward.workspace_bytes = workspace[0] or None, workspace[1]
        stats = initialised(xqkv_stats)
        call("xqkv_projection_forward", self.handle, ctypes.byref(forward), ctypes.byref(stats))
        return Result(**outputs, multiply_adds=stats.multiply_adds, weights_version=stats.weights_version)

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
        """A plan for forwards like this one, with at most as many rows; see Plan."""
        example, _ = self._call(decoder, encoder, (query, key, value), (layer, layer_count), dtype, 0)
        return Plan(self.handle, example, alignment_bytes, workspace_limit, is_timed)

    def _call(
        self, decoder: Any, encoder: Any, views: tuple[Any, Any, Any], layers: tuple[int, int], dtype: Any, stream: int
    ) -> tuple[xqkv_forward, dict[str, AnyArray | None]]:
        """The call's struct, and the outputs that it points to."""
        forward = initialised(xqkv_forward)
        layer, layer_count = layers
        query, key, value = views
        forward.layer, forward.layer_count = layer, layer_count
        forward.stream = stream or None
        sides = {"decoder": decoder, "encoder": encoder}
        given = {
            name: None if side is None else placed(side, self._is_cuda, stream, name) for name, side in sides.items()
        }
        widths = {"decoder": self.spec.decoder_width, "encoder": self.spec.encoder_width}
        for name, rows in given.items():
            if rows is not None:
                setattr(forward, name, input_of(rows, widths[name], name))
        outputs: dict[str, AnyArray | None] = {}
        for name, side, output in (("query", "decoder", query), ("key", "encoder", key), ("value", "encoder", value)):
            rows = given[side]
            outputs[name] = None
            if rows is not None and rows.shape[0] > 0:
                shape = (layer_count, rows.shape[0], *self._heads(name))
                if output is None and self._is_cuda:
                    raise ValueError(f"{name} is not given; on CUDA pass an array of the device's for it")
                made: AnyArray
                if output is None:
                    made = np.empty(shape if layer_count > 1 else shape[1:], dtype)
                else:
                    made = placed(output, self._is_cuda, stream, name)
                outputs[name] = made
                if made.size > 0:
                    setattr(forward, name, view_of(made, shape, name))
        return forward, outputs

    def _heads(self, part: str) -> tuple[int, int]:
        """This rank's heads of a part, and their width."""
        width = self.spec.value_head_width or self.spec.head_width
        if part == "query":
            return self.shard.query_head_count, self.spec.head_width
        return self.shard.key_value_head_count, self.spec.head_width if part == "key" else width
