"""Calls of several ranks, which are threads: results of all ranks' heads and rows, shared work, and what goes wrong."""

import numpy as np
import pytest
import xqkv
from ranks import SPEC, Board, BoardCollectives, in_threads, projection_of, raised_in_threads, results, small

RANKS = pytest.mark.parametrize("rank_count", [1, 2, 3, 4])


def split_of(rank, rank_count):
    return xqkv.Split.balanced(xqkv.Spec(**SPEC), rank, rank_count)


def equal(result, expected):
    return all(np.array_equal(one, other) for one, other in zip((result.query, result.key, result.value), expected))


@RANKS
def test_gathered_results_are_of_all_heads_on_every_rank(rank_count):
    decoder, encoder = small(3, 6), small(5, 5)

    def body(rank, comm):
        with projection_of(comm, split=split_of(rank, rank_count)) as projection:
            return projection.forward(decoder, encoder, layer=1, gather_query=True, gather_key_value=True)

    for result in in_threads(xqkv.Comm.threads(rank_count, deadline_ms=5000), body):
        assert equal(result, results(decoder, encoder, 1))
        assert (result.received_bytes > 0) == (rank_count > 1)


@RANKS
def test_rows_of_every_rank_become_keys_and_values_of_all(rank_count):
    rank_rows = [5, 0, 2, 1][:rank_count]
    encoder = small(sum(rank_rows), 5)
    parts = np.split(encoder, np.cumsum(rank_rows)[:-1])

    def body(rank, comm):
        with projection_of(comm, split=split_of(rank, rank_count)) as projection:
            asked = {"encoder_rank_rows": rank_rows, "chunk_rows": 2, "layer_count": 2, "gather_key_value": True}
            return projection.forward(encoder=parts[rank], **asked)

    for result in in_threads(xqkv.Comm.threads(rank_count, deadline_ms=5000), body):
        for layer in range(2):
            _, key, value = results(small(0, 6), encoder, layer)
            assert np.array_equal(result.key[layer], key) and np.array_equal(result.value[layer], value)


def test_ranks_of_the_same_heads_share_the_work_of_them():
    encoder = small(7, 5)

    def body(rank, comm):
        with projection_of(comm, share_replicas=True) as projection:
            return projection.forward(encoder=encoder), projection.shard.key_value_head_begin

    executed = 0
    for result, first in in_threads(xqkv.Comm.threads(4, deadline_ms=5000), body):
        _, key, value = results(small(0, 6), encoder)
        assert np.array_equal(result.key, key[:, first : first + 1])
        assert np.array_equal(result.value, value[:, first : first + 1])
        executed += result.multiply_adds
    assert executed == 7 * 5 * 2 * (4 + 3)


def test_results_that_stay_sharded_take_no_transfer():
    def body(rank, comm):
        with projection_of(comm) as projection:
            before = comm.transfers
            result = projection.forward(small(1, 6), small(2, 5))
            return result.transfers, result.received_bytes, comm.transfers - before

    assert in_threads(xqkv.Comm.threads(2, deadline_ms=5000), body) == [(0, 0, 0)] * 2


@pytest.mark.parametrize("rank_count", [2, 4])
def test_the_engines_own_collectives_give_the_bits_of_threads(rank_count):
    board, encoder = Board(rank_count), np.random.default_rng(0).standard_normal((9, 5), np.float32)
    engines = [BoardCollectives(board, rank) for rank in range(rank_count)]
    comms = [xqkv.Comm.collectives(engine, engine.rank, rank_count) for engine in engines]

    def body(rank, comm):
        with projection_of(comm, share_replicas=True) as projection:
            return projection.forward(encoder=encoder, gather_key_value=True).key

    keys = in_threads(comms, body) + in_threads(xqkv.Comm.threads(rank_count, deadline_ms=5000), body)
    assert all(np.array_equal(key.view(np.int32), keys[0].view(np.int32)) for key in keys)
    assert all(engine.calls for engine in engines)


def test_a_plan_holds_for_calls_with_transfers():
    decoder, encoder = small(2, 6), small(3, 5)
    asked = {"gather_query": True, "gather_key_value": True, "encoder_rank_rows": [2, 1]}

    def body(rank, comm):
        mine = encoder[:2] if rank == 0 else encoder[2:]
        with projection_of(comm) as projection, projection.plan(decoder, mine, **asked) as plan:
            return projection.forward(decoder, mine, plan=plan, **asked)

    for result in in_threads(xqkv.Comm.threads(2, deadline_ms=5000), body):
        assert equal(result, results(decoder, encoder)) and result.plans_made == 0


def test_ranks_that_disagree_are_told_so_and_nothing_is_made():
    def body(rank, comm):
        with xqkv.Context(thread_count=1) as context:
            xqkv.Projection(context, xqkv.Spec(**SPEC | {"layer_count": 2 + rank}), comm=comm)

    comms = xqkv.Comm.threads(2, deadline_ms=5000)
    before = xqkv.handle_count()
    raised = raised_in_threads(comms, body)
    assert [one.status for one in raised] == [xqkv.Status.MISMATCH] * 2 and xqkv.handle_count() == before


def test_a_rank_without_rows_says_of_which_dtype_they_would_be():
    with projection_of(xqkv.Comm.alone()) as projection, pytest.raises(ValueError, match=r"brings \[0, width\]"):
        projection.forward(encoder_rank_rows=[0])


def test_a_rank_alone_gives_up_and_goes_on_with_another_communicator():
    decoder, asked = small(2, 6), {"gather_query": True}

    def body(rank, comm):
        projection = projection_of(comm)
        if rank == 1:
            return projection
        with pytest.raises(xqkv.XqkvError) as raised:
            projection.forward(decoder, **asked)
        assert raised.value.status == xqkv.Status.TIMED_OUT and comm.is_poisoned
        assert equal(projection.forward(decoder), (results(decoder, small(0, 5))[0][:, :2],))
        return projection

    projections = in_threads(xqkv.Comm.threads(2, deadline_ms=100), body)

    def renewed(rank, comm):
        projections[rank].set_comm(comm)
        assert projections[rank].comm is comm
        return projections[rank].forward(decoder, **asked).query

    for query in in_threads(xqkv.Comm.threads(2, deadline_ms=5000), renewed):
        assert np.array_equal(query, results(decoder, small(0, 5))[0])
    for projection in projections:
        projection.close()


def test_what_the_engines_collectives_raise_is_the_cause_of_the_callers_error():
    board = Board(2)
    engines = [BoardCollectives(board, rank) for rank in range(2)]

    def body(rank, comm):
        with projection_of(comm) as projection:
            engines[rank].broadcast = engines[rank].all_gather = engines[rank].exchange = lose
            projection.forward(small(1, 6), gather_query=True)

    def lose(*_):
        raise ConnectionResetError("the cable")

    comms = [xqkv.Comm.collectives(engine, engine.rank, 2) for engine in engines]
    for raised in raised_in_threads(comms, body):
        assert raised.status == xqkv.Status.PEER_LOST and "the cable" in str(raised.__cause__)
