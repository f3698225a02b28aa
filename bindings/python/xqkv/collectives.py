"""The engine's own collectives as the library calls them: exceptions become statuses, and are kept."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ._abi import (
    xqkv_abort_callback,
    xqkv_all_gather_callback,
    xqkv_broadcast_callback,
    xqkv_collectives,
    xqkv_exchange_callback,
    xqkv_message,
    xqkv_poll_callback,
    xqkv_status,
)
from ._library import initialised
from .arrays import Array


@dataclass(frozen=True)
class Memory:
    """Bytes that a transfer reads or writes: the host's or, with the CUDA backend, the device's."""

    address: int
    byte_count: int

    def array(self) -> Array:
        """Host memory as an array of uint8, good until the transfer is done."""
        if self.byte_count == 0:
            return np.empty(0, np.uint8)
        return np.ctypeslib.as_array((ctypes.c_uint8 * self.byte_count).from_address(self.address))

    def parts(self, byte_counts: Sequence[int]) -> list[Memory]:
        """The same memory in pieces, one behind the other."""
        ends = np.cumsum([0, *byte_counts]).tolist()
        return [Memory(self.address + begin, count) for begin, count in zip(ends, byte_counts)]


@dataclass(frozen=True)
class Message:
    """Bytes for another rank, or from it."""

    memory: Memory
    peer: int
    is_sent: bool


class PeerLost(ConnectionError):
    """A rank is gone; to be raised by a `Collectives` that knows which."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank


class Collectives:
    """Transfers of the engine's own, to be derived from. Each method starts one and returns; `poll` says when all are
    done. What a method raises fails the transfer and poisons the communicator: TimeoutError becomes TIMED_OUT, all else
    PEER_LOST, whether it was a `PeerLost` that names the rank or a mistake. The caller's error has it as its cause.

    `stream` is a CUstream's address with the CUDA backend, on whose order transfers are then done; else 0. Methods are
    called by threads that are in a call with transfers; `poll` and `abort` by any.
    """

    # Whether they take a device's memory; if not, a projection on CUDA refuses the communicator.
    is_on_device = False

    def all_gather(self, buffer: Memory, byte_counts: list[int], stream: int) -> None:
        """Everybody's bytes to everybody: each rank's lie in the buffer behind those of the ranks before it."""
        raise NotImplementedError

    def broadcast(self, buffer: Memory, root: int, stream: int) -> None:
        """The root's bytes to everybody."""
        raise NotImplementedError

    def exchange(self, messages: list[Message], stream: int) -> None:
        """Bytes from rank to rank: the n-th for a rank is the n-th that it has from this one."""
        raise NotImplementedError

    def poll(self) -> int | None:
        """None if all transfers are done that were started, else the rank that one waits for, -1 if it is not known;
        raises why one has failed."""
        return None

    def abort(self) -> None:
        """Ends all transfers, so that nobody touches their memory any more when it returns."""


class Bridge:
    """The C functions that call a `Collectives`, and what it raised first."""

    def __init__(self, collectives: Collectives) -> None:
        self.failure: BaseException | None = None
        self._collectives = collectives
        self._lock = threading.Lock()
        self._functions = {
            "all_gather": xqkv_all_gather_callback(self._all_gather),
            "broadcast": xqkv_broadcast_callback(self._broadcast),
            "exchange": xqkv_exchange_callback(self._exchange),
            "poll": xqkv_poll_callback(self._poll),
            "abort": xqkv_abort_callback(self._abort),
        }
        self.plain = initialised(xqkv_collectives)
        for name, function in self._functions.items():
            setattr(self.plain, name, function)

    def _all_gather(self, buffer: int | None, counts: int, rank_count: int, stream: int | None, _: int | None) -> int:
        bytes_of = list((ctypes.c_int64 * rank_count).from_address(counts))
        memory = Memory(buffer or 0, sum(bytes_of))
        return self._answer(lambda: self._collectives.all_gather(memory, bytes_of, stream or 0))

    def _broadcast(self, buffer: int | None, count: int, root: int, stream: int | None, _: int | None) -> int:
        memory = Memory(buffer or 0, count)
        return self._answer(lambda: self._collectives.broadcast(memory, root, stream or 0))

    def _exchange(self, messages: int | None, count: int, stream: int | None, _: int | None) -> int:
        plain = (xqkv_message * count).from_address(messages or 0) if count else ()
        given = [Message(Memory(one.data or 0, one.bytes), one.peer, bool(one.is_sent)) for one in plain]
        return self._answer(lambda: self._collectives.exchange(given, stream or 0))

    def _poll(self, is_done: int, rank: int, _: int | None) -> int:
        def look() -> None:
            waits_for = self._collectives.poll()
            ctypes.c_int32.from_address(is_done).value = waits_for is None
            ctypes.c_int64.from_address(rank).value = -1 if waits_for is None else waits_for

        status = self._answer(look)
        if isinstance(self.failure, PeerLost):
            ctypes.c_int64.from_address(rank).value = self.failure.rank
        return status

    def _abort(self, _: int | None) -> None:
        self._answer(self._collectives.abort)

    def _answer(self, method: Callable[[], None]) -> int:
        """Nothing may unwind into the library, not even an interrupt from the keyboard."""
        try:
            method()
            return int(xqkv_status.OK)
        except BaseException as failure:
            with self._lock:
                self.failure = self.failure or failure
            return _status_of(failure)


def _status_of(failure: BaseException) -> int:
    if isinstance(failure, TimeoutError):
        return int(xqkv_status.TIMED_OUT)
    return int(xqkv_status.PEER_LOST if isinstance(failure, ConnectionError) else xqkv_status.CALLBACK_FAILED)
