"""Communicators by themselves, and the engine's collectives as the library calls them."""

import ctypes
import gc

import numpy as np
import pytest
import xqkv
from xqkv._abi import xqkv_message
from xqkv.collectives import Bridge


class Recorder(xqkv.Collectives):
    """Keeps what it was asked for, and raises what it is told to."""

    def __init__(self):
        self.calls, self.raises, self.waits_for = [], None, None

    def _note(self, *call):
        self.calls.append(call)
        if self.raises is not None:
            raise self.raises

    def all_gather(self, buffer, byte_counts, stream):
        self._note("all_gather", [part.array().tolist() for part in buffer.parts(byte_counts)], stream)

    def broadcast(self, buffer, root, stream):
        buffer.array()[:] = root
        self._note("broadcast", buffer.byte_count, root, stream)

    def exchange(self, messages, stream):
        self._note("exchange", [(one.memory.byte_count, one.peer, one.is_sent) for one in messages], stream)

    def poll(self):
        self._note("poll")
        return self.waits_for

    def abort(self):
        self._note("abort")


def polled(bridge):
    is_done, rank = ctypes.c_int32(-7), ctypes.c_int64(-1)
    status = bridge.plain.poll(ctypes.addressof(is_done), ctypes.addressof(rank), None)
    return status, is_done.value, rank.value


def test_a_communicator_tells_what_it_is():
    with xqkv.Comm.alone() as comm:
        assert (comm.kind, comm.rank, comm.rank_count) == (xqkv.CommKind.ALONE, 0, 1)
        assert not comm.is_poisoned and comm.transfers == 0 and comm.nccl_version == 0
        comm.poll()
    comms = xqkv.Comm.threads(3, deadline_ms=50)
    assert [(comm.kind, comm.rank, comm.rank_count) for comm in comms] == [
        (xqkv.CommKind.THREADS, rank, 3) for rank in range(3)
    ]
    with xqkv.Comm.collectives(Recorder(), 2, 5) as comm:
        assert (comm.kind, comm.rank, comm.rank_count) == (xqkv.CommKind.COLLECTIVES, 2, 5)
    del comms
    gc.collect()
    assert xqkv.handle_count() == 0


def test_what_makes_no_communicator_is_refused():
    with pytest.raises(xqkv.InvalidArgument, match="deadline_ms is -1"):
        xqkv.Comm.alone(deadline_ms=-1)
    with pytest.raises(xqkv.InvalidArgument, match="rank_count is 0"):
        xqkv.Comm.threads(0)
    with pytest.raises(xqkv.InvalidArgument, match="rank"):
        xqkv.Comm.collectives(Recorder(), 2, 2)
    assert xqkv.handle_count() == 0


def test_an_abort_ends_the_communicator_on_every_rank():
    first, second = xqkv.Comm.threads(2)
    first.abort()
    assert first.is_poisoned
    for comm in (first, second):
        with pytest.raises(xqkv.XqkvError) as raised:
            comm.poll()
        assert raised.value.status in (xqkv.Status.COMM_POISONED, xqkv.Status.PEER_LOST)
        comm.close()


def test_an_abort_reaches_the_engines_own_collectives_once():
    recorder = Recorder()
    with xqkv.Comm.collectives(recorder, 0, 2) as comm:
        comm.abort()
        comm.abort()
    assert recorder.calls == [("abort",)]


def test_a_poll_of_the_engines_that_raises_is_the_cause_of_the_error():
    recorder = Recorder()
    with xqkv.Comm.collectives(recorder, 0, 4) as comm:
        comm.poll()
        recorder.raises = xqkv.PeerLost(3, "the link is down")
        with pytest.raises(xqkv.XqkvError, match="rank 3 is lost") as raised:
            comm.poll()
        assert raised.value.status == xqkv.Status.PEER_LOST
        assert raised.value.__cause__ is recorder.raises is comm.failure
        with pytest.raises(xqkv.XqkvError) as raised:
            comm.poll()
        assert raised.value.status == xqkv.Status.COMM_POISONED


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (TimeoutError("late"), xqkv.Status.TIMED_OUT),
        (ConnectionResetError("gone"), xqkv.Status.PEER_LOST),
        (KeyError("a mistake"), xqkv.Status.CALLBACK_FAILED),
        (KeyboardInterrupt(), xqkv.Status.CALLBACK_FAILED),
    ],
)
def test_whatever_a_collective_raises_is_a_status_and_kept(raised, status):
    recorder = Recorder()
    bridge = Bridge(recorder)
    recorder.raises = raised
    assert bridge.plain.broadcast(None, 0, 0, None, None) == status
    recorder.raises = RuntimeError("the second is not the reason")
    assert polled(bridge)[0] == xqkv.Status.CALLBACK_FAILED
    assert bridge.failure is raised


def test_each_collective_sees_the_bytes_where_they_lie():
    recorder = Recorder()
    plain = Bridge(recorder).plain
    buffer, counts = np.arange(6, dtype=np.uint8), np.array([1, 0, 5], np.int64)
    assert plain.all_gather(buffer.ctypes.data, counts.ctypes.data, 3, 17, None) == xqkv.Status.OK
    assert plain.broadcast(buffer.ctypes.data, 4, 2, None, None) == xqkv.Status.OK
    assert buffer.tolist() == [2, 2, 2, 2, 4, 5]
    messages = (xqkv_message * 2)(
        xqkv_message(data=buffer.ctypes.data, bytes=6, peer=1, is_sent=1), xqkv_message(bytes=0, peer=2, is_sent=0)
    )
    assert plain.exchange(ctypes.addressof(messages), 2, None, None) == xqkv.Status.OK
    assert plain.exchange(None, 0, None, None) == xqkv.Status.OK
    assert recorder.calls == [
        ("all_gather", [[0], [], [1, 2, 3, 4, 5]], 17), ("broadcast", 4, 2, 0),
        ("exchange", [(6, 1, True), (0, 2, False)], 0), ("exchange", [], 0),
    ]  # fmt: skip


def test_a_poll_tells_the_rank_that_it_waits_for():
    recorder = Recorder()
    bridge = Bridge(recorder)
    assert polled(bridge) == (xqkv.Status.OK, 1, -1)
    recorder.waits_for = 0
    assert polled(bridge) == (xqkv.Status.OK, 0, 0)
