"""Ranks on devices of their own, over NCCL, on the simulated GPU. xtask names its library in the environment."""

import os

import numpy as np
import pytest
import simulated_device
import xqkv
from ranks import in_threads, projection_of, results, small
from simulated_device import Device, Interface

if not (simulated_device.IS_SIMULATED and "gpusim" in os.environ.get("XQKV_NCCL_LIBRARY", "")):
    pytest.skip("XQKV_NCCL_LIBRARY does not name libgpusim.so", allow_module_level=True)


def on_device(rank, body):
    with xqkv.Context(backend=xqkv.Backend.CUDA, device=rank) as context:
        return body(Device(rank), context)


def test_ranks_on_devices_gather_what_they_hold_over_nccl(device):
    unique_id, decoder = xqkv.Comm.unique_id(), small(3, 6)

    def body(rank, _):
        return on_device(rank, lambda own, context: gathered(rank, own, context))

    def gathered(rank, own, context):
        query = own.put(np.full((3, 4, 4), np.nan, np.float32))
        workspace = own.put(np.zeros(1 << 16, np.uint8))
        with xqkv.Comm.nccl(context, unique_id, rank, 2, deadline_ms=20_000) as comm:
            assert (comm.kind, comm.rank, comm.rank_count) == (xqkv.CommKind.NCCL, rank, 2) and comm.nccl_version > 0
            with projection_of(comm, context=context) as projection:
                outputs = {"query": Interface(query), "workspace": Interface(workspace)}
                result = projection.forward(Interface(own.put(decoder)), gather_query=True, **outputs)
                own.call("cuCtxSynchronize")
        return query.read(), result.received_bytes

    for query, received in in_threads([None, None], body):
        assert np.array_equal(query, results(decoder, small(0, 5))[0]) and received > 0


def test_collectives_of_host_memory_are_refused_on_a_device(device):
    with xqkv.Comm.collectives(xqkv.Collectives(), 0, 1) as comm:
        with pytest.raises(ValueError, match="host memory only"):
            on_device(0, lambda _, context: projection_of(comm, context=context))
