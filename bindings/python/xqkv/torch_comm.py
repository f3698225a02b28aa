"""A communicator of the ranks of a process group of torch.distributed's. Needs torch.

    comm = of_group(context, torch.distributed.new_group(), deadline_ms=10_000)
    projection = Projection(context, spec, comm=comm)

On CUDA it is NCCL's, and the group only tells its unique id. On the host its transfers are the group's, which must have
a backend for tensors there, as Gloo is; after a failure the group may still hold some that nobody waits for, so give it
a group of its own, with a timeout of about the deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from ._abi import xqkv_backend
from .collectives import Collectives, Memory, Message
from .comm import Comm
from .context import Context

Group = dist.ProcessGroup


def of_group(context: Context, group: Group | None = None, *, deadline_ms: int = 0, flags: int = 0) -> Comm:
    """This process's rank of a group, by default of all processes; all of the group's ranks make one."""
    group = dist.group.WORLD if group is None else group
    if group is None or dist.get_rank(group) < 0:
        raise ValueError("this process is in no such group; init_process_group or new_group comes first")
    rank, rank_count = dist.get_rank(group), dist.get_world_size(group)
    if context.backend == xqkv_backend.CUDA:
        return Comm.nccl(context, _told_id(group), rank, rank_count, deadline_ms=deadline_ms, flags=flags)
    collectives = GroupCollectives(group)
    return Comm.collectives(collectives, rank, rank_count, deadline_ms=deadline_ms, flags=flags)


def _told_id(group: Group) -> bytes:
    """The first rank's unique id."""
    told = [Comm.unique_id() if dist.get_rank(group) == 0 else None]
    dist.broadcast_object_list(told, group=group, group_src=0)
    return told[0] or b""


@dataclass(frozen=True)
class Transfer:
    """One that the group is at. Its tensors are torch's own: after an abort the group may still write to these, and
    never to the library's memory."""

    work: dist.Work
    waits_for: int
    arrive: Callable[[], object]


class GroupCollectives(Collectives):
    """The group's own transfers, waited for by `is_completed`."""

    def __init__(self, group: Group) -> None:
        ensure_on_host(group)
        self._group, self._rank = group, dist.get_rank(group)
        self._under_way: list[Transfer] = []
        self._lock = threading.Lock()

    def all_gather(self, buffer: Memory, byte_counts: list[int], stream: int) -> None:
        # Groups gather equal parts only; these need not be.
        for root, part in enumerate(buffer.parts(byte_counts)):
            self.broadcast(part, root, stream)

    def broadcast(self, buffer: Memory, root: int, stream: int) -> None:
        if buffer.byte_count == 0:
            return
        is_root = root == self._rank
        staged = _copy_of(buffer) if is_root else torch.empty(buffer.byte_count, dtype=torch.uint8)
        arrive = _nothing if is_root else lambda: _tensor(buffer).copy_(staged)
        self._begin(root, arrive, lambda: dist.broadcast(staged, group=self._group, group_src=root, async_op=True))

    def exchange(self, messages: list[Message], stream: int) -> None:
        """All ranks come here, also those without messages. Gloo's isend and irecv are completed only by a wait that
        nothing ends, so this is one transfer from all to all."""
        sent = self._by_peer([one for one in messages if one.is_sent])
        received = self._by_peer([one for one in messages if not one.is_sent])
        source = torch.cat([torch.empty(0, dtype=torch.uint8), *(_tensor(one) for peer in sent for one in peer)])
        target = torch.empty(sum(_total(peer) for peer in received), dtype=torch.uint8)
        counts = [_total(peer) for peer in received], [_total(peer) for peer in sent]
        self._begin(
            -1,
            lambda: _spread(target, [one for peer in received for one in peer]),
            lambda: dist.all_to_all_single(target, source, *counts, group=self._group, async_op=True),
        )

    def poll(self) -> int | None:
        with self._lock:
            while self._under_way:
                transfer = self._under_way[0]
                if not transfer.work.is_completed():
                    return transfer.waits_for
                _told(transfer.work.wait)
                transfer.arrive()
                self._under_way.pop(0)
        return None

    def abort(self) -> None:
        with self._lock:
            self._under_way.clear()

    def _begin(self, waits_for: int, arrive: Callable[[], object], start: Callable[[], Any]) -> None:
        with self._lock:
            self._under_way.append(Transfer(_told(start), waits_for, arrive))

    def _by_peer(self, messages: list[Message]) -> list[list[Memory]]:
        peers: list[list[Memory]] = [[] for _ in range(dist.get_world_size(self._group))]
        for message in messages:
            peers[message.peer].append(message.memory)
        return peers


def ensure_on_host(group: Group) -> None:
    """Refuses a group whose transfers are of a device's memory only."""
    try:
        group._get_backend(torch.device("cpu"))
    except RuntimeError as error:
        raise ValueError("the group has no backend for host memory; make it with new_group(backend='gloo')") from error


def _told(step: Callable[[], Any]) -> Any:
    """What the group raises as what `Collectives` promises: torch has one exception for all of it."""
    try:
        return step()
    except RuntimeError as error:
        is_late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        raise (TimeoutError if is_late else ConnectionError)(str(error)) from error


def _tensor(memory: Memory) -> torch.Tensor:
    return torch.from_numpy(memory.array())


def _copy_of(memory: Memory) -> torch.Tensor:
    return _tensor(memory).clone()


def _total(memories: list[Memory]) -> int:
    return sum(memory.byte_count for memory in memories)


def _spread(source: torch.Tensor, memories: list[Memory]) -> None:
    for memory, part in zip(memories, torch.split(source, [memory.byte_count for memory in memories])):
        _tensor(memory).copy_(part)


def _nothing() -> None:
    """The root has its bytes already."""
