"""Handles, updates and errors."""

import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xqkv


def spec(**changed):
    fields = {"weight_dtype": xqkv.Dtype.F32, "decoder_width": 4, "encoder_width": 4, "query_heads": 2, "head_width": 2}
    return xqkv.Spec(**(fields | {"key_value_heads": 2} | changed))


def test_statuses_are_exceptions_with_their_message():
    with pytest.raises(xqkv.InvalidArgument, match="head_width is 0") as caught:
        spec(head_width=0).check()
    assert caught.value.status == xqkv.Status.INVALID_ARGUMENT and caught.value.effect.name == "NONE"
    with pytest.raises(xqkv.InvalidArgument, match="norm_epsilon is 0"):
        spec(norm=xqkv.Norm.RMS).check()
    with pytest.raises(xqkv.CheckpointError, match="config.json"):
        xqkv.Spec.read(xqkv.Checkpoint("/nonexistent"))
    with pytest.raises(TypeError, match="no hidden_size"):
        xqkv.Spec(hidden_size=4)
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, spec()) as projection:
        with pytest.raises(xqkv.NotReady, match="query weight of layer 0"):
            projection.forward(decoder=np.zeros((1, 4), np.float32))


def test_handles_close_once_and_refuse_use_after():
    context = xqkv.Context(thread_count=1)
    assert context.thread_count == 1 and xqkv.handle_count() == 1
    context.close()
    context.close()
    assert xqkv.handle_count() == 0
    with pytest.raises(ValueError, match="closed"):
        xqkv.Projection(context, spec())


def test_the_garbage_collector_closes_what_is_forgotten():
    context = xqkv.Context(thread_count=1)
    projection = xqkv.Projection(context, spec())
    update = projection.update()
    assert xqkv.handle_count() == 3
    del context, projection, update
    gc.collect()
    assert xqkv.handle_count() == 0


def test_an_update_commits_at_the_end_of_its_block_or_not_at_all():
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, spec()) as projection:
        with pytest.raises(RuntimeError), projection.update() as update:
            update.put(0, xqkv.Part.QUERY, np.ones((4, 4), np.float32))
            raise RuntimeError
        assert projection.weights_version == 0
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, np.ones((4, 4), np.float32))
        assert projection.weights_version == 1
        with projection.update() as update:
            update.clear(0, xqkv.Part.QUERY)
        with pytest.raises(xqkv.NotReady):
            projection.forward(decoder=np.zeros((1, 4), np.float32))
    assert xqkv.handle_count() == 0


def test_splits_share_heads():
    assert spec().cut(xqkv.Split.even(1, 2)).query_head_begin == 1
    assert spec().cut(xqkv.Split.explicit((0, 0), (0, 2))).query_columns == 0
    assert spec(layer_count=3).cut(xqkv.Split().layers(1)).layer_count == 2
    with pytest.raises(xqkv.InvalidArgument, match="XQKV_SPLIT_EXPLICIT"):
        spec().cut(xqkv.Split.even(0, 3))


def test_weights_that_lie_across_or_together_per_head_project_alike():
    query, key, value = np.arange(-24, 24, dtype=np.float32).reshape(3, 4, 4)
    of_heads = np.concatenate([part.reshape(2, 2, 4) for part in (query, key, value)], axis=1).reshape(12, 4)
    rows, parts, per_head = np.eye(4, dtype=np.float32), xqkv.Part.QUERY_KEY_VALUE, xqkv.FusedOrder.PER_HEAD
    across = np.ascontiguousarray(of_heads.T)
    with xqkv.Context(thread_count=1) as context:
        for rank in range(2):
            own = slice(2 * rank, 2 * rank + 2)
            cut = np.ascontiguousarray(across[:, 6 * rank : 6 * rank + 6])
            with xqkv.Projection(context, spec(), xqkv.Split.even(rank, 2)) as projection:
                for source, changed in [
                    (np.concatenate([query, key, value]), {}),
                    (of_heads, {"fused_order": per_head}),
                    (across, {"fused_order": per_head, "layout": xqkv.Layout.IN_OUT}),
                    (cut, {"fused_order": per_head, "layout": xqkv.Layout.IN_OUT, "extent": xqkv.Extent.SHARD}),
                ]:
                    with projection.update() as update:
                        update.put(0, parts, source, **changed)
                    result = projection.forward(decoder=rows, encoder=rows)
                    for found, part in zip((result.query, result.key, result.value), (query, key, value)):
                        assert np.array_equal(found.reshape(4, 2), part[own].T)


def test_integers_have_a_scale_for_each_output_or_for_all():
    weight = np.array([[1, 2, 3, -128], [0, 0, 0, 1], [127, -1, 2, 5], [-7, 0, 0, 0]], np.int8)
    rows = np.array([[127, -3, 5, 0], [1, 0, -127, 64]], np.float32)
    halves = np.array([0.5, 1, 2, 4], np.float16)
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, spec(weight_dtype=xqkv.Dtype.INT8)) as made:
        for scale in (halves.astype(np.float32), halves, np.stack([halves, halves], axis=1)[:, 0], 2, np.float32(0.25)):
            with made.update() as update:
                update.put(0, xqkv.Part.QUERY, weight, scale=scale)
            exact = rows @ (weight.astype(np.float32) * np.reshape(np.asarray(scale, np.float32), (-1, 1))).T
            assert np.array_equal(made.forward(decoder=rows).query.reshape(2, 4), exact)
        with made.update() as update, pytest.raises(ValueError, match="needs one for each"):
            update.put(0, xqkv.Part.QUERY, weight, scale=np.ones(3, np.float32))
        with made.update() as update, pytest.raises(xqkv.InvalidArgument, match="scale_block_rows"):
            update.put(0, xqkv.Part.QUERY, weight)


def test_a_norm_has_a_weight_of_its_own():
    normed = spec(norm=xqkv.Norm.RMS, norm_epsilon=1e-5)
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, normed) as projection:
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, np.eye(4, dtype=np.float32))
            with pytest.raises(xqkv.InvalidArgument, match="value has no norm"):
                update.put(0, xqkv.Part.VALUE, np.ones(2, np.float32), kind=xqkv.Kind.NORM)
        with pytest.raises(xqkv.NotReady, match="query norm of layer 0"):
            projection.forward(decoder=np.zeros((1, 4), np.float32))
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, np.ones(2, np.float32), kind=xqkv.Kind.NORM)


def projected(context, rows, weight):
    with context, xqkv.Projection(context, spec(decoder_width=256, query_heads=8, head_width=32)) as projection:
        context.close()
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, weight)
        gc.collect()
        return projection.forward(decoder=rows).query


def test_an_executor_does_the_hosts_work_with_the_same_bits():
    rows, weight = np.random.default_rng(1).standard_normal((2, 256, 256), np.float32)
    expected, seen = projected(xqkv.Context(), rows, weight), set()

    def noted(task, index):
        seen.add(threading.get_ident())
        task(index)

    with ThreadPoolExecutor(3) as pool:
        context = xqkv.Context(
            thread_count=3, parallel_for=lambda count, task: list(pool.map(lambda at: noted(task, at), range(count)))
        )
        assert projected(context, rows, weight).tobytes() == expected.tobytes()
    assert seen and threading.get_ident() not in seen
    with pytest.raises(xqkv.XqkvError, match="skipped 2") as caught:
        projected(xqkv.Context(thread_count=3, parallel_for=lambda count, task: task(0)), rows, weight)
    assert caught.value.status == xqkv.Status.CALLBACK_FAILED and caught.value.effect.name == "OUTPUTS_UNDEFINED"


def test_threads_project_side_by_side():
    rows, failures = np.arange(400, dtype=np.float32).reshape(100, 4) % 7, []
    with xqkv.Context(thread_count=2) as context, xqkv.Projection(context, spec()) as projection:
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, np.eye(4, dtype=np.float32))

        def run() -> None:
            for _ in range(200):
                if not np.array_equal(projection.forward(decoder=rows).query.reshape(100, 4), rows):
                    failures.append(1)

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_pool_that_raises_fails_the_forward(monkeypatch):
    printed = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)

    def parallel_for(count, task):
        raise RuntimeError("no threads today")

    rows = np.ones((64, 256), np.float32)
    with xqkv.Context(thread_count=3, parallel_for=parallel_for) as context:
        with xqkv.Projection(context, spec(decoder_width=256, head_width=128)) as projection:
            with projection.update() as update:
                update.put(0, xqkv.Part.QUERY, np.ones((256, 256), np.float32))
            with pytest.raises(xqkv.XqkvError) as caught:
                projection.forward(rows)
    assert caught.value.status == xqkv.Status.CALLBACK_FAILED
    assert [str(one.exc_value) for one in printed] == ["no threads today"]
