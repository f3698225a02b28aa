"""This rank's shard of Wq, Wk and Wv."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ._abi import xqkv_backend, xqkv_comm_kind, xqkv_projection_flag, xqkv_shard, xqkv_spec, xqkv_stats
from ._library import Handle, call, created, initialised
from .checkpoint import Checkpoint
from .comm import Comm, raised_by
from .context import Context
from .forward import Call, Ranks, host_workspace
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
    transfers: int
    received_bytes: int


class Projection(Handle):
    """Any thread may use it, several at once; ctypes lets go of Python's lock while the library works."""

    def __init__(
        self,
        context: Context,
        spec: xqkv_spec,
        split: Split | None = None,
        *,
        flags: int = 0,
        comm: Comm | None = None,
        share_replicas: bool = False,
    ) -> None:
        """`flags` are values of ProjectionFlag, added up. With `comm` this and commits are calls that all its ranks
        make; without a split each then holds its even share. `share_replicas` has ranks that hold the same heads of K
        and V project a part of the rows each."""
        chosen = Split() if split is None else split
        self.device = context.device if context.backend == xqkv_backend.CUDA else None
        self._ensure_reaches(comm)
        self.flags = flags | (xqkv_projection_flag.SHARE_REPLICAS if share_replicas else 0)
        options = chosen.with_extras(comm, self.flags)
        with raised_by(comm):
            handle = created("xqkv_projection_create", context.handle, ctypes.byref(spec), ctypes.byref(options))
        super().__init__(handle, "xqkv_projection_destroy")
        self.spec, self.comm, self._parallel_for = spec, comm, context.parallel_for
        self.shard = initialised(xqkv_shard)
        call("xqkv_projection_get_shard", handle, ctypes.byref(self.shard))

    @classmethod
    def load(
        cls,
        context: Context,
        spec: xqkv_spec,
        checkpoint: Checkpoint,
        split: Split | None = None,
        *,
        flags: int = 0,
        comm: Comm | None = None,
        share_replicas: bool = False,
    ) -> Projection:
        """A projection with this rank's weights of a checkpoint."""
        projection = cls(context, spec, split, flags=flags, comm=comm, share_replicas=share_replicas)
        with projection.update() as update:
            update.read(checkpoint)
        return projection

    def update(self) -> Update:
        """Begins a weight transaction."""
        return Update(self)

    def set_comm(self, comm: Comm | None) -> None:
        """Goes on with another communicator of the same ranks, made after one has failed. All ranks call it."""
        self._ensure_reaches(comm)
        with raised_by(comm):
            call("xqkv_projection_set_comm", self.handle, None if comm is None else comm.handle)
        self.comm = comm

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
        workspace: Any = None,
        gather_query: bool = False,
        gather_key_value: bool = False,
        encoder_rank_rows: Sequence[int] | None = None,
        chunk_rows: int = 0,
    ) -> Result:
        """Q from decoder rows if there are any, K and V from encoder rows if there are any.

        Inputs are [rows, width], or an Input with a row list. Outputs that are not given are made, as [rows, heads,
        width] of this rank's heads with an axis of layers before if there are several; given ones may have any strides,
        heads and width as one axis, or be a list of arrays, one for each layer, or a View.

        `workspace` is an array of uint8, or an address and its bytes, as large and aligned as `Plan.workspace` says.
        The host needs it for slots only, and takes memory of its own if none is given.

        On CUDA outputs and workspace must be given, and `stream` is a CUstream's address (0 is the default stream). The
        call returns before its work is done: keep what it was given, lists and slots too.

        With a communicator, `gather_query` and `gather_key_value` give every rank all heads, and `encoder_rank_rows`
        says how many encoder rows each rank brings, which are then sent `chunk_rows` at a time: K and V have the rows
        of all ranks, and a rank without any brings [0, width]. All ranks make such a call alike.
        """
        ranks = Ranks(gather_query, gather_key_value, encoder_rank_rows, chunk_rows)
        shape = Call(self, stream, layer, layer_count, ranks)
        shape.take(decoder, encoder, {"query": query, "key": key, "value": value}, dtype)
        shape.plain.stream = stream or None
        shape.lend(self._scratch(shape, plan) if workspace is None else workspace)
        shape.plain.plan = None if plan is None else plan.handle
        stats = initialised(xqkv_stats)
        with raised_by(self.comm):
            call("xqkv_projection_forward", self.handle, ctypes.byref(shape.plain), ctypes.byref(stats))
        counted = [field.name for field in fields(Result) if field.name not in shape.outputs]
        return Result(**shape.outputs, **{name: getattr(stats, name) for name in counted})

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
        gather_query: bool = False,
        gather_key_value: bool = False,
        encoder_rank_rows: Sequence[int] | None = None,
        chunk_rows: int = 0,
    ) -> Plan:
        """A plan for calls like this one, with at most as many rows; nothing is read or written."""
        ranks = Ranks(gather_query, gather_key_value, encoder_rank_rows, chunk_rows)
        shape = Call(self, None, layer, layer_count, ranks)
        shape.take(decoder, encoder, {"query": query, "key": key, "value": value}, dtype)
        return Plan(self, shape.plain, alignment_bytes, workspace_limit, is_timed)

    def _scratch(self, shape: Call, plan: Plan | None) -> Any:
        """Workspace of the host's for a call that needs some."""
        if self.device is not None or not (shape.has_slots or shape.has_transfers):
            return None
        if plan is not None:
            return host_workspace(plan.workspace)
        with Plan(self, shape.plain, alignment_bytes=1) as made:
            return host_workspace(made.workspace)

    def _ensure_reaches(self, comm: Comm | None) -> None:
        """Python's own collectives would read a device's memory as the host's."""
        if comm is not None and self.device is not None and not comm.is_on_device:
            if comm.kind == xqkv_comm_kind.COLLECTIVES:
                raise ValueError("these collectives take host memory only; on CUDA use Comm.nccl, or set is_on_device")

    def heads(self, part: str, is_gathered: bool = False) -> tuple[int, int]:
        """This rank's heads of a part or, once gathered, all ranks', and their width."""
        width = self.spec.value_head_width or self.spec.head_width
        if part == "query":
            return self.spec.query_heads if is_gathered else self.shard.query_head_count, self.spec.head_width
        heads = self.spec.key_value_heads if is_gathered else self.shard.key_value_head_count
        return heads, self.spec.head_width if part == "key" else width
