"""The uncut layers, and how ranks share them."""

from __future__ import annotations

import ctypes

from ._abi import xqkv_projection_options, xqkv_shard, xqkv_spec, xqkv_split
from ._library import call, initialised
from .checkpoint import Checkpoint
from .comm import Comm

Shard = xqkv_shard


class Spec(xqkv_spec):
    """A struct xqkv_spec: set its fields by name, or read them from a checkpoint."""

    def __init__(self, **fields: float) -> None:
        plain = initialised(xqkv_spec)
        ctypes.memmove(ctypes.byref(self), ctypes.byref(plain), ctypes.sizeof(plain))
        for name, value in fields.items():
            if not hasattr(self, name):
                raise TypeError(f"a spec has no {name}")
            setattr(self, name, value)

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> Spec:
        """The spec that a checkpoint's configuration makes."""
        spec = cls()
        call("xqkv_spec_read_checkpoint", ctypes.byref(spec), ctypes.byref(checkpoint.plain))
        return spec

    def check(self) -> None:
        """Raises what xqkv_projection_create would."""
        call("xqkv_spec_check", ctypes.byref(self))

    def cut(self, split: Split | None = None) -> xqkv_shard:
        """What a rank holds."""
        shard = initialised(xqkv_shard)
        call("xqkv_spec_cut", ctypes.byref(self), split and ctypes.byref(split.plain), ctypes.byref(shard))
        return shard


class Split:
    """What one rank holds of a spec: by default the whole."""

    def __init__(self) -> None:
        self.plain = initialised(xqkv_projection_options)

    @classmethod
    def even(cls, rank: int, rank_count: int) -> Split:
        """Equal shares, key/value heads replicated where ranks outnumber them."""
        split = cls()
        split.plain.rank, split.plain.rank_count = rank, rank_count
        return split

    @classmethod
    def balanced(cls, spec: xqkv_spec, rank: int, rank_count: int) -> Split:
        """Shares of any number of ranks that differ by at most one head."""
        split = cls()
        call("xqkv_projection_options_balance", ctypes.byref(split.plain), ctypes.byref(spec), rank, rank_count)
        return split

    @classmethod
    def explicit(cls, query: tuple[int, int], key_value: tuple[int, int]) -> Split:
        """These heads: the first and how many of Q, the first and how many of K and V."""
        split = cls()
        split.plain.split = xqkv_split.EXPLICIT
        split.plain.query_head_begin, split.plain.query_head_count = query
        split.plain.key_value_head_begin, split.plain.key_value_head_count = key_value
        return split

    def layers(self, begin: int, count: int = 0) -> Split:
        """The same heads of these layers only."""
        self.plain.layer_begin, self.plain.layer_count = begin, count
        return self

    def with_extras(self, comm: Comm | None, flags: int) -> xqkv_projection_options:
        """The library's options for this split, with the ranks' communicator and flags of a projection's."""
        options = initialised(xqkv_projection_options)
        ctypes.pointer(options)[0] = self.plain
        options.comm = None if comm is None else comm.handle
        options.flags = flags
        return options
