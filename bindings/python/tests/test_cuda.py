"""CUDA contexts, plans and device arrays, on the simulated GPU. xtask names its library in the environment."""

import ml_dtypes
import numpy as np
import pytest
import simulated_device
import xqkv
from simulated_device import Exported, Interface

if not simulated_device.IS_SIMULATED:
    pytest.skip("XQKV_CUDA_LIBRARY does not name libgpusim.so", allow_module_level=True)

WIDTH, HEADS, HEAD_WIDTH = 16, 2, 8
ROWS = np.arange(6 * WIDTH, dtype=np.float32).reshape(6, WIDTH) % 5 - 2
WEIGHT = np.arange(3 * WIDTH * WIDTH, dtype=np.float32).reshape(3 * WIDTH, WIDTH) % 7 - 3
QUERY, KEY, VALUE = (ROWS @ WEIGHT[first : first + WIDTH].T for first in (0, 16, 32))


def projection_of(dtype, **put):
    spec = xqkv.Spec(
        weight_dtype=dtype, layer_count=1, decoder_width=WIDTH, encoder_width=WIDTH,
        query_heads=HEADS, key_value_heads=HEADS, head_width=HEAD_WIDTH,
    )  # fmt: skip
    with xqkv.Context(backend=xqkv.Backend.CUDA) as context:
        projection = xqkv.Projection(context, spec)
    with projection.update() as update:
        update.put(0, xqkv.Part.QUERY_KEY_VALUE, **put)
    return projection


@pytest.fixture
def projection(device):
    with projection_of(xqkv.Dtype.F32, source=WEIGHT) as projection:
        yield projection
    assert xqkv.handle_count() == 0


def output(device, dtype=np.float32, rows=6):
    return device.put(np.zeros((rows, HEADS, HEAD_WIDTH), dtype))


def flat(memory):
    return memory.read().reshape(len(memory.pattern), -1).astype(np.float32)


def test_a_context_tells_about_its_device(device):
    with xqkv.Context(backend=xqkv.Backend.CUDA, device=0) as context:
        assert context.backend == xqkv.Backend.CUDA and context.device == 0 and context.thread_count == 0
        assert context.compute_capability >= 75 and context.multiprocessor_count > 0
        assert context.driver_version >= 12000 and context.cublaslt_version > 0
    with pytest.raises(xqkv.XqkvError) as caught:
        xqkv.Context(backend=xqkv.Backend.CUDA, device=99)
    assert caught.value.status == xqkv.Status.NO_DEVICE
    with pytest.raises(xqkv.InvalidArgument, match="backend"):
        xqkv.Context(backend=9)
    with xqkv.Context(backend=xqkv.Backend.AUTO) as context:
        assert context.backend == xqkv.Backend.CUDA


@pytest.mark.parametrize("version", [2, 3])
def test_the_array_interface_goes_in_and_out_in_place(device, projection, version):
    rows, query = Interface(device.put(ROWS), version), output(device)
    result = projection.forward(rows, query=(out := Interface(query, version)))
    device.wait(0)
    assert result.query is out and result.key is None and np.array_equal(flat(query), QUERY)
    assert result.multiply_adds == 6 * WIDTH * WIDTH and result.matmuls == 1


def test_the_array_interfaces_strides_are_bytes(device, projection):
    wide, fused = device.put(np.zeros((6, 2 * WIDTH), np.float32)), device.put(np.zeros((6, 2, HEADS, HEAD_WIDTH), np.float32))
    both = device.put(np.concatenate([np.full_like(ROWS, 9), ROWS], axis=1))
    views = [fused.pattern[:, 0], fused.pattern[:, 1]]
    key, value = (Interface(fused, view=view) for view in views)
    projection.forward(encoder=Interface(both, view=both.pattern[:, WIDTH:]), key=key, value=value)
    query = Interface(wide, view=wide.pattern[:, :WIDTH])
    projection.forward(Interface(both, view=both.pattern[:, WIDTH:]), query=query)
    device.wait(0)
    assert np.array_equal(fused.read().reshape(6, 2, -1), np.stack([KEY, VALUE], axis=1))
    assert np.array_equal(wide.read()[:, :WIDTH], QUERY) and not wide.read()[:, WIDTH:].any()


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("kind", [xqkv.Dtype.F32, xqkv.Dtype.F16, xqkv.Dtype.BF16])
def test_every_dtype_comes_by_dlpack(device, kind, versioned):
    numbers = {xqkv.Dtype.F32: np.float32, xqkv.Dtype.F16: np.float16, xqkv.Dtype.BF16: ml_dtypes.bfloat16}[kind]
    exact = ROWS[:, :WIDTH] @ (WEIGHT[:WIDTH] % 2).T
    query = output(device, numbers)
    weight = Exported(device.put((WEIGHT % 2).astype(numbers)), kind, versioned)
    with projection_of(kind, source=weight) as projection:
        rows = Exported(device.put(ROWS.astype(numbers)), kind, versioned, packed=True)
        projection.forward(rows, query=Exported(query, kind, versioned))
        device.wait(0)
    assert weight.asked == [-1] and np.array_equal(flat(query), exact)


def test_dlpack_is_asked_for_the_calls_stream(device, projection):
    stream, rows = device.stream(), Exported(device.put(ROWS), xqkv.Dtype.F32)
    for number in (0, 2, stream):
        query = output(device)
        projection.forward(rows, query=Exported(query, xqkv.Dtype.F32), stream=number)
        device.wait(number)
        assert np.array_equal(flat(query), QUERY)
    assert rows.asked == [1, 2, stream]


def test_an_array_interface_of_another_stream_is_refused(device, projection):
    stream, other, memory, query = device.stream(), device.stream(), device.put(ROWS), output(device)
    for named, ran in [(stream, stream), (1, 0), (2, 2), (None, stream)]:
        projection.forward(Interface(memory, stream=named), query=Interface(query), stream=ran)
        device.wait(ran)
    before = device.calls("cublasLtMatmul")
    for named, ran, word in [(stream, other, "run the call there"), (1, stream, "run"), (2, 0, "run"), (0, 0, "stream 0")]:
        with pytest.raises(ValueError, match=word):
            projection.forward(Interface(memory, stream=named), query=Interface(query), stream=ran)
    assert device.calls("cublasLtMatmul") == before
    # Version 2 has no such entry.
    projection.forward(Interface(memory, version=2, stream=stream), query=Interface(query), stream=other)
    device.wait(other)


def test_what_is_elsewhere_or_read_only_is_refused_before_the_library_sees_it(device, projection):
    rows, query = device.put(ROWS), output(device)
    good, f32 = Interface(rows), xqkv.Dtype.F32
    before = device.calls("cublasLtMatmul")
    for arguments, error, word in [
        ({"decoder": ROWS, "query": Interface(query)}, TypeError, "decoder is in host memory"),
        ({"decoder": good, "query": query.pattern}, TypeError, "query is in host memory"),
        ({"decoder": good}, ValueError, "query is not given"),
        ({"decoder": good, "query": Interface(query, read_only=True)}, ValueError, "read-only"),
        ({"decoder": good, "query": Exported(query, f32, read_only=True)}, ValueError, "read-only"),
        ({"decoder": Exported(rows, f32, number=1), "query": Interface(query)}, ValueError, "on device 1"),
        ({"decoder": Interface(rows, typestr="<f8"), "query": Interface(query)}, TypeError, "<f8"),
        ({"decoder": Interface(rows, mask=good), "query": Interface(query)}, ValueError, "mask"),
    ]:
        with pytest.raises(error, match=word):
            projection.forward(**arguments)
    assert device.calls("cublasLtMatmul") == before
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, projection.spec) as host:
        for source in (good, Exported(rows, f32)):
            with pytest.raises(TypeError, match="decoder is in CUDA memory"):
                host.forward(source)
            with pytest.raises(TypeError, match="query is in CUDA memory"), host.update() as update:
                update.put(0, xqkv.Part.QUERY, source)


def test_a_plan_runs_in_lent_workspace_on_a_stream(device, projection):
    rows, query, stream = Interface(device.put(ROWS)), output(device), device.stream()
    with projection.plan(rows, query=Interface(query)) as plan:
        sizes = plan.workspace
        assert sizes.minimum_bytes == 0 and sizes.alignment_bytes == 256
        size = max(sizes.recommended_bytes, 256)
        before = device.calls("cuMemAlloc_v2")
        workspace = (device.allocate(size), size)
        result = projection.forward(rows, query=Interface(query), stream=stream, plan=plan, workspace=workspace)
        device.wait(stream)
        assert device.calls("cuMemAlloc_v2") == before + 1
    assert result.plans_made == 0 and np.array_equal(flat(query), QUERY)


def test_a_plan_holds_calls_to_its_shape(device, projection):
    rows, query = device.put(ROWS), output(device)
    few = Interface(rows, view=rows.pattern[:3]), Interface(query, view=query.pattern[:3])
    with projection.plan(few[0], query=few[1]) as plan, pytest.raises(xqkv.XqkvError) as caught:
        projection.forward(Interface(rows), query=Interface(query), plan=plan)
    assert caught.value.status == xqkv.Status.PLAN_MISMATCH


def test_weights_are_borrowed_or_copied_from_the_device(device):
    weight, query = device.put(WEIGHT), output(device)
    rows = Interface(device.put(ROWS))
    with projection_of(xqkv.Dtype.F32, source=Interface(weight), borrow=True) as projection:
        update = projection.update()
        assert update.commit_bytes == 0
        update.put(0, xqkv.Part.QUERY, Interface(weight, view=weight.pattern[:WIDTH]))
        assert update.commit_bytes >= 4 * WIDTH * WIDTH
        projection.forward(rows, query=Interface(query))
        device.wait(0)
        assert update.commit() == 2
    assert np.array_equal(flat(query), QUERY)


def test_replaced_weights_are_reclaimed_behind_streams(device):
    stream = device.stream()
    spec = xqkv.Spec(weight_dtype=1, decoder_width=WIDTH, encoder_width=WIDTH, query_heads=1, head_width=16)
    with xqkv.Context(backend=xqkv.Backend.CUDA) as context, xqkv.Projection(context, spec) as projection:
        for _ in range(2):
            with projection.update() as update:
                update.put(0, xqkv.Part.QUERY, WEIGHT[:WIDTH])
        before = device.calls("cuMemFree_v2")
        context.reclaim(stream)
        assert context.reclaim() == 0 and device.calls("cuMemFree_v2") == before + 1


def test_flags_reach_the_library(device, projection):
    with xqkv.Context(backend=xqkv.Backend.CUDA) as context:
        with xqkv.Projection(context, projection.spec, flags=xqkv.ProjectionFlag.BATCH_INVARIANT):
            pass
        with pytest.raises(xqkv.InvalidArgument, match="flags"):
            xqkv.Projection(context, projection.spec, flags=1 << 40)
