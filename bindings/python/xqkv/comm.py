"""This rank's seat among the ranks of a projection."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from ._abi import xqkv_comm_info, xqkv_comm_kind, xqkv_comm_options, xqkv_effect, xqkv_unique_id
from ._library import Handle, call, created, initialised
from .collectives import Bridge, Collectives
from .context import Context
from .errors import XqkvError


class Comm(Handle):
    """What ranks tell each other goes through one. Outputs that stay sharded by head need none.

    After a transfer has failed every later one raises COMM_POISONED: make another on every rank and hand it to
    `Projection.set_comm`. Weights, plans and calls without transfers stay as they were.
    """

    def __init__(self, handle: int, bridge: Bridge | None = None, *, is_on_device: bool = False) -> None:
        """Made by `alone`, `threads`, `collectives`, `nccl` and `adopt_nccl`."""
        super().__init__(handle, "xqkv_comm_destroy")
        self.is_on_device = is_on_device
        # Projections keep the communicator, and so what the library calls, for as long as they live.
        self._bridge = bridge

    @classmethod
    def alone(cls, *, deadline_ms: int = 0, flags: int = 0) -> Comm:
        """The one rank of a group of one."""
        return cls(created("xqkv_comm_create_alone", _options(deadline_ms, flags)))

    @classmethod
    def threads(cls, rank_count: int, *, deadline_ms: int = 0, flags: int = 0) -> list[Comm]:
        """The ranks that are threads of this process, in order; each is used by a thread of its own."""
        handles = (ctypes.c_void_p * max(rank_count, 1))()
        call("xqkv_comm_create_threads", _options(deadline_ms, flags), rank_count, handles)
        return [cls(int(handle or 0)) for handle in handles]

    @classmethod
    def collectives(
        cls, collectives: Collectives, rank: int, rank_count: int, *, deadline_ms: int = 0, flags: int = 0
    ) -> Comm:
        """This rank of a group whose transfers are the engine's own; see `Collectives`."""
        bridge = Bridge(collectives)
        options, plain = _options(deadline_ms, flags), ctypes.byref(bridge.plain)
        handle = created("xqkv_comm_create_collectives", options, plain, rank, rank_count)
        return cls(handle, bridge, is_on_device=collectives.is_on_device)

    @staticmethod
    def unique_id() -> bytes:
        """What the ranks of an NCCL communicator find each other by: made on one rank, and told to the others."""
        made = xqkv_unique_id()
        call("xqkv_unique_id_create", ctypes.byref(made))
        return bytes(made.bytes)

    @classmethod
    def nccl(
        cls, context: Context, unique_id: bytes, rank: int, rank_count: int, *, deadline_ms: int = 0, flags: int = 0
    ) -> Comm:
        """This rank of a group over NCCL, on the device of a CUDA context; waits until all ranks do the same."""
        options, made = _options(deadline_ms, flags), xqkv_unique_id.from_buffer_copy(unique_id)
        name, address = "xqkv_comm_create_nccl", ctypes.byref(made)
        return cls(created(name, context.handle, options, address, rank, rank_count), is_on_device=True)

    @classmethod
    def adopt_nccl(cls, context: Context, nccl_comm: int, *, deadline_ms: int = 0, flags: int = 0) -> Comm:
        """One of the engine's, by the address of its ncclComm_t, which stays the engine's and must outlive this."""
        options = _options(deadline_ms, flags)
        return cls(created("xqkv_comm_adopt_nccl", context.handle, options, nccl_comm), is_on_device=True)

    def poll(self) -> None:
        """Raises what has failed, and ends transfers that are past their deadline; never waits."""
        with raised_by(self):
            call("xqkv_comm_poll", self.handle)

    def abort(self) -> None:
        """Ends all transfers, here and on the other ranks. Any thread."""
        call("xqkv_comm_abort", self.handle)

    @property
    def failure(self) -> BaseException | None:
        """What the engine's collectives raised first, if they did."""
        return None if self._bridge is None else self._bridge.failure

    def _info(self) -> xqkv_comm_info:
        info = initialised(xqkv_comm_info)
        call("xqkv_comm_get_info", self.handle, ctypes.byref(info))
        return info

    @property
    def kind(self) -> xqkv_comm_kind:
        """What carries the bytes."""
        return xqkv_comm_kind(self._info().kind)

    @property
    def rank(self) -> int:
        """This rank, from 0."""
        return int(self._info().rank)

    @property
    def rank_count(self) -> int:
        """How many ranks there are."""
        return int(self._info().rank_count)

    @property
    def transfers(self) -> int:
        """Transfers that were started, also those by which ranks agree."""
        return int(self._info().transfers)

    @property
    def is_poisoned(self) -> bool:
        """Whether every later transfer raises COMM_POISONED."""
        return bool(self._info().is_poisoned)

    @property
    def nccl_version(self) -> int:
        """NCCL's version, such as 22705; 0 if something else carries the bytes."""
        return int(self._info().nccl_version)


def _options(deadline_ms: int, flags: int) -> ctypes._Pointer[xqkv_comm_options]:
    options = initialised(xqkv_comm_options)
    options.deadline_ms, options.flags = deadline_ms, flags
    return ctypes.pointer(options)


@contextmanager
def raised_by(comm: Comm | None) -> Iterator[None]:
    """Gives an error of a communicator what the engine's collectives raised as its cause."""
    try:
        yield
    except XqkvError as error:
        if comm is None or comm.failure is None or error.effect != xqkv_effect.COMMUNICATOR_POISONED:
            raise
        raise error from comm.failure
