"""Ranks as threads of the tests, and a group of theirs whose transfers are numpy's."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xqkv

SPEC = {
    "weight_dtype": xqkv.Dtype.F32, "decoder_width": 6, "encoder_width": 5, "query_heads": 4, "key_value_heads": 2,
    "head_width": 4, "value_head_width": 3, "layer_count": 2,
}  # fmt: skip


def small(*shape, seed=0):
    """Small integers, whose sums are exact."""
    return np.random.default_rng([seed, *shape]).integers(-4, 5, shape).astype(np.float32)


def weights(layer):
    """The uncut weights of a layer."""
    return {
        xqkv.Part.QUERY: small(16, 6, seed=layer),
        xqkv.Part.KEY: small(8, 5, seed=layer + 10),
        xqkv.Part.VALUE: small(6, 5, seed=layer + 20),
    }


def results(decoder, encoder, layer=0):
    """Q, K and V of all heads."""
    of = weights(layer)
    return (
        (decoder @ of[xqkv.Part.QUERY].T).reshape(len(decoder), 4, 4),
        (encoder @ of[xqkv.Part.KEY].T).reshape(len(encoder), 2, 4),
        (encoder @ of[xqkv.Part.VALUE].T).reshape(len(encoder), 2, 3),
    )


def projection_of(comm, context=None, **options):
    """This rank's even share, loaded."""
    context = xqkv.Context(thread_count=1) if context is None else context
    projection = xqkv.Projection(context, xqkv.Spec(**SPEC), comm=comm, **options)
    with projection.update() as update:
        for layer in range(2):
            for part, weight in weights(layer).items():
                update.put(layer, part, weight)
    return projection


def in_threads(comms, body):
    """What body(rank, comm) gives on each rank; raises what the first raised."""
    with ThreadPoolExecutor(len(comms)) as pool:
        return list(pool.map(body, range(len(comms)), comms))


def raised_in_threads(comms, body):
    """What body(rank, comm) raises on each rank, None where it does not."""

    def raised(rank, comm):
        try:
            body(rank, comm)
        except Exception as failure:
            return failure
        return None

    return in_threads(comms, raised)


class Board:
    """Where the ranks of a group show each other their bytes."""

    def __init__(self, rank_count):
        self.rank_count = rank_count
        self._posts, self._barrier = {}, threading.Barrier(rank_count, timeout=10)

    def shown(self, rank, post):
        """What each rank posts, once all have."""
        self._posts[rank] = post
        self._barrier.wait()
        posts = [self._posts[peer] for peer in range(self.rank_count)]
        self._barrier.wait()
        return posts


class BoardCollectives(xqkv.Collectives):
    """A rank of a board's; transfers are done when their methods return."""

    def __init__(self, board, rank):
        self.board, self.rank, self.calls = board, rank, []

    def all_gather(self, buffer, byte_counts, stream):
        self.calls.append("all_gather")
        parts = [part.array() for part in buffer.parts(byte_counts)]
        for part, shown in zip(parts, self.board.shown(self.rank, parts[self.rank].copy())):
            part[:] = shown

    def broadcast(self, buffer, root, stream):
        self.calls.append("broadcast")
        buffer.array()[:] = self.board.shown(self.rank, buffer.array().copy())[root]

    def exchange(self, messages, stream):
        self.calls.append("exchange")
        sent = [(one.peer, one.memory.array().copy()) for one in messages if one.is_sent]
        shown = self.board.shown(self.rank, sent)
        waiting = [[data for peer, data in posts if peer == self.rank] for posts in shown]
        for one in messages:
            if not one.is_sent:
                one.memory.array()[:] = waiting[one.peer].pop(0)
