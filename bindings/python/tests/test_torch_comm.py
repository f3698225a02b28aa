"""torch.distributed's groups as communicators: processes over Gloo."""

import os
import time
from datetime import timedelta

import numpy as np
import pytest
import xqkv

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
import torch.multiprocessing as processes  # noqa: E402
from ranks import projection_of, results, small  # noqa: E402
from xqkv import torch_comm  # noqa: E402


def in_ranks(folder, rank_count, *bodies):
    """Runs each body(rank, rank_count) in as many processes, ranks of Gloo's; few, since torch loads slowly."""
    processes.spawn(_rank, (folder / "store", rank_count, bodies), nprocs=rank_count)


def _rank(rank, store, rank_count, bodies):
    timeout = timedelta(seconds=60)
    dist.init_process_group("gloo", f"file://{store}", timeout, world_size=rank_count, rank=rank)
    for body in bodies:
        body(rank, rank_count)
        dist.barrier()
    dist.destroy_process_group()


def memory_of(array):
    return xqkv.Memory(array.ctypes.data, array.nbytes)


def finished(collectives):
    while collectives.poll() is not None:
        time.sleep(0.001)


def move(rank, rank_count):
    collectives = torch_comm.GroupCollectives(dist.group.WORLD)
    counts = [(5 * peer) % 7 for peer in range(rank_count)]
    ends = np.cumsum([0, *counts])
    buffer = np.full(ends[-1] + 3, 99, np.uint8)
    buffer[ends[rank] : ends[rank + 1]] = rank
    collectives.all_gather(memory_of(buffer[: ends[-1]]), counts, 0)
    finished(collectives)
    assert buffer.tolist() == [peer for peer in range(rank_count) for _ in range(counts[peer])] + [99] * 3

    buffer = np.full(3, rank, np.uint8)
    collectives.broadcast(memory_of(buffer), rank_count - 1, 0)
    finished(collectives)
    assert buffer.tolist() == [rank_count - 1] * 3
    exchange(rank, rank_count, collectives)


def exchange(rank, rank_count, collectives):
    """Every rank sends two messages to the next, and the last sends nothing to the first."""
    sent = [np.full(rank + 1, rank, np.uint8), np.full(2, 100 + rank, np.uint8)]
    received = [np.full(rank, 99, np.uint8), np.full(2, 99, np.uint8)]
    messages = []
    if rank > 0:
        messages += [xqkv.Message(memory_of(one), rank - 1, False) for one in received]
    if rank + 1 < rank_count:
        messages += [xqkv.Message(memory_of(one), rank + 1, True) for one in sent]
    collectives.exchange(messages, 0)
    finished(collectives)
    if rank > 0:
        assert received[0].tolist() == [rank - 1] * rank and received[1].tolist() == [99 + rank] * 2


def wait_too_long(rank, _):
    group = dist.new_group(timeout=timedelta(milliseconds=300))
    if rank == 0:
        collectives = torch_comm.GroupCollectives(group)
        collectives.broadcast(memory_of(np.zeros(4, np.uint8)), 1, 0)
        assert collectives.poll() == 1
        with pytest.raises(TimeoutError):
            finished(collectives)


def forget_a_transfer(rank, _):
    collectives = torch_comm.GroupCollectives(dist.new_group())
    buffer = np.full(4, rank, np.uint8)
    if rank == 0:
        collectives.broadcast(memory_of(buffer), 1, 0)
        collectives.abort()
    dist.barrier()
    if rank == 1:
        collectives.broadcast(memory_of(buffer), 1, 0)
        finished(collectives)
    dist.barrier()
    assert buffer.tolist() == [rank] * 4


def tell(rank, rank_count):
    context, part = xqkv.Context(thread_count=1), dist.new_group([1])
    with torch_comm.of_group(context, deadline_ms=100) as comm:
        assert (comm.kind, comm.rank, comm.rank_count) == (xqkv.CommKind.COLLECTIVES, rank, rank_count)
        comm.poll()
    if rank == 0:
        with pytest.raises(ValueError, match="no such group"):
            torch_comm.of_group(context, part)
    else:
        with torch_comm.of_group(context, part) as comm:
            assert (comm.rank, comm.rank_count) == (0, 1)


def project(rank, rank_count):
    """The shared work of replicas, and rows of every rank, as threads do them."""
    encoder, asked = small(7, 5), {"encoder_rank_rows": [4, 3, 0, 0][:rank_count], "gather_key_value": True}
    begin = sum(asked["encoder_rank_rows"][:rank])
    mine = encoder[begin : begin + asked["encoder_rank_rows"][rank]]
    with xqkv.Context(thread_count=1) as context, torch_comm.of_group(context, deadline_ms=20_000) as comm:
        with projection_of(comm, share_replicas=True) as projection:
            first = projection.shard.key_value_head_begin
            count = projection.shard.key_value_head_count
            shared = projection.forward(encoder=encoder)
            gathered = projection.forward(encoder=mine, **asked)
    _, key, value = results(small(0, 6), encoder)
    assert np.array_equal(shared.key, key[:, first : first + count])
    assert np.array_equal(gathered.key, key) and np.array_equal(gathered.value, value)
    assert shared.transfers > 0 or rank_count == 2


def lose_a_peer(rank, _):
    with xqkv.Context(thread_count=1) as context, torch_comm.of_group(context, deadline_ms=5_000) as comm:
        projection = projection_of(comm)
        if rank == 1:
            os._exit(0)
        with pytest.raises(xqkv.XqkvError) as raised:
            projection.forward(small(1, 6), gather_query=True)
        assert raised.value.status == xqkv.Status.PEER_LOST and raised.value.__cause__ is comm.failure
        assert projection.forward(small(1, 6)).transfers == 0
    os._exit(0)


@pytest.mark.parametrize("rank_count", [2, 4])
def test_bytes_of_uneven_parts_reach_every_rank_and_a_projection_has_the_results_of_one(tmp_path, rank_count):
    in_ranks(tmp_path, rank_count, move, project)


def test_a_late_rank_is_a_timeout_and_nothing_is_written_after_an_abort(tmp_path):
    in_ranks(tmp_path, 2, tell, forget_a_transfer, wait_too_long)


def test_a_process_that_is_gone_is_a_lost_peer_and_weights_stay(tmp_path):
    in_ranks(tmp_path, 2, lose_a_peer)
