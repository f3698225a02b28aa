"""Pages, batches, slots, a buffer for each layer, sums and row lists: to the bit what the plain call writes."""

import numpy as np
import pytest
import xqkv
from xqkv import Input, View

LAYERS, ROWS, ENCODER, HEADS, WIDTH = 2, 6, 7, 2, 3
RANDOM = np.random.default_rng(5)
HIDDEN = RANDOM.standard_normal((ROWS, ENCODER), np.float32)


@pytest.fixture
def projection():
    spec = xqkv.Spec(
        weight_dtype=xqkv.Dtype.F32, layer_count=LAYERS, decoder_width=ENCODER, encoder_width=ENCODER,
        query_heads=HEADS, key_value_heads=HEADS, head_width=WIDTH,
    )  # fmt: skip
    with xqkv.Context(thread_count=2) as context, xqkv.Projection(context, spec) as projection:
        with projection.update() as update:
            for layer in range(LAYERS):
                weight = RANDOM.standard_normal((3 * HEADS * WIDTH, ENCODER), np.float32)
                update.put(layer, xqkv.Part.QUERY_KEY_VALUE, weight)
        yield projection
    assert xqkv.handle_count() == 0


@pytest.fixture
def plain(projection):
    """Key and value as packed arrays [layers, rows, heads, width]."""
    return projection.forward(encoder=HIDDEN, layer_count=LAYERS)


def poisoned(*shape):
    return np.full(shape, np.nan, np.float32)


def same(one, other):
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


def test_pages_of_every_axis_order_are_filled_by_slots(projection, plain):
    """Pages of 4 rows; slots name 6 of 3 * 4 places."""
    slots = np.array([9, 8, 3, 0, 5, 11])
    extents = {"layer": LAYERS, "group": 3, "row": 4, "head": HEADS, "width": WIDTH}
    for axes in ["layer group row head width", "group layer head row width", "head width group row layer"]:
        key, value = (poisoned(*(extents[axis] for axis in axes.split())) for _ in range(2))
        sides = {"key": View(key, axes, slots), "value": View(value, axes, slots.tolist())}
        result = projection.forward(encoder=HIDDEN, layer_count=LAYERS, **sides)
        assert result.key is sides["key"]
        for pages, exact in [(key, plain.key), (value, plain.value)]:
            order = [axes.split().index(axis) for axis in extents]
            places = pages.transpose(order).reshape(LAYERS, 12, HEADS, WIDTH)
            assert same(places[:, slots], exact)
            assert np.isnan(np.delete(places, slots, axis=1)).all()


def test_rows_whose_slot_is_minus_one_are_left_out(projection, plain):
    key, value = poisoned(LAYERS, 4, HEADS, WIDTH), poisoned(LAYERS, 4, HEADS * WIDTH)
    slots = [2, -1, 0, -1, -1, 3]
    projection.forward(encoder=HIDDEN, layer_count=LAYERS, key=View(key, slots=slots), value=View(value, slots=slots))
    assert same(key[:, [2, 0, 3]], plain.key[:, [0, 2, 5]]) and np.isnan(key[:, 1]).all()
    assert same(value[:, [2, 0, 3]], plain.value[:, [0, 2, 5]].reshape(LAYERS, 3, -1)) and np.isnan(value[:, 1]).all()


def test_sequences_of_a_batch_are_head_major(projection, plain):
    """[batch, heads, rows, width], with room for more sequences, and for more rows of each."""
    key, value = poisoned(3, HEADS, 5, WIDTH), poisoned(2, HEADS, WIDTH, 3)
    views = {"key": View([key[:, :, :3]], "group head row width"), "value": View(value, "group head width row")}
    projection.forward(encoder=HIDDEN, layer=1, **views)
    assert same(key[:2, :, :3], plain.key[1].reshape(2, 3, HEADS, WIDTH).transpose(0, 2, 1, 3))
    assert np.isnan(key[2]).all() and np.isnan(key[:, :, 3:]).all()
    assert same(value, plain.value[1].reshape(2, 3, HEADS, WIDTH).transpose(0, 2, 3, 1))


def test_each_layer_may_have_an_array_of_its_own(projection, plain):
    keys = [poisoned(ROWS, HEADS, WIDTH) for _ in range(LAYERS)]
    values = [poisoned(HEADS, WIDTH, ROWS + 2) for _ in range(LAYERS)]
    projection.forward(encoder=HIDDEN, layer_count=LAYERS, key=keys, value=View(values, "head width row"))
    for layer in range(LAYERS):
        assert same(keys[layer], plain.key[layer])
        assert same(values[layer][..., :ROWS], plain.value[layer].transpose(1, 2, 0))
        assert np.isnan(values[layer][..., ROWS:]).all()


def test_accumulate_adds_to_what_is_there(projection, plain):
    before = np.ones((ROWS, HEADS, WIDTH), np.float32)
    key, value = before.copy(), before.copy()
    projection.forward(encoder=HIDDEN, key=View(key, accumulate=True), value=value)
    assert same(key, before + plain.key[0]) and same(value, plain.value[0])


def test_a_row_list_takes_rows_in_its_order(projection, plain):
    for rows in ([4, 0, 0, 5], np.array([4, 0, 0, 5])):
        result = projection.forward(encoder=Input(HIDDEN, row_list=rows))
        assert same(result.key, plain.key[0][rows]) and same(result.value, plain.value[0][rows])
    query = projection.forward(HIDDEN).query
    assert same(projection.forward(Input(HIDDEN[::2], row_list=[2])).query, query[[4]])


def test_slots_run_in_the_callers_workspace_with_a_plan(projection, plain):
    key, value = poisoned(ROWS, HEADS, WIDTH), poisoned(ROWS, HEADS, WIDTH)
    backwards = list(reversed(range(ROWS)))
    call = {"encoder": HIDDEN, "key": View(key, slots=backwards), "value": View(value, slots=backwards)}
    with projection.plan(**call, alignment_bytes=1) as plan:
        sizes = plan.workspace
        memory = np.empty(sizes.minimum_bytes + sizes.alignment_bytes, np.uint8)
        first = -memory.ctypes.data % sizes.alignment_bytes
        lent = memory[first : first + sizes.minimum_bytes]
        assert sizes.minimum_bytes > 0 and sizes.alignment_bytes == 256
        for workspace in (lent, (lent.ctypes.data, lent.nbytes), None):
            key[:] = np.nan
            assert projection.forward(**call, plan=plan, workspace=workspace).plans_made == 0
            assert same(key, plain.key[0][::-1])
        with pytest.raises(xqkv.XqkvError) as caught:
            projection.forward(**call, plan=plan, workspace=lent[:-1])
        assert caught.value.status == xqkv.Status.WORKSPACE_TOO_SMALL
        with pytest.raises(xqkv.XqkvError, match="256"):
            projection.forward(**call, workspace=memory[first + 1 :])


def test_what_the_library_refuses_is_raised_with_its_message_and_writes_nothing(projection):
    key, value = poisoned(4, HEADS, WIDTH), poisoned(ROWS, HEADS, WIDTH)
    for arguments, word in [
        ({"key": View(key, slots=[0, 1, 2, 3, 4, -1])}, r"key.slots\[4\] is 4"),
        ({"key": View(key, slots=[0, 1, 2, 0, -1, -1])}, "key.slots"),
        ({"key": [value]}, "OVERLAP"),
        ({"encoder": Input(HIDDEN, row_list=[0, 6]), "value": View(value)}, r"encoder.row_list\[1\] is 6"),
        ({"key": View(key[:, :0], slots=[-1] * ROWS)}, "key.data is NULL"),
    ]:
        with pytest.raises(xqkv.XqkvError, match=word):
            projection.forward(**({"encoder": HIDDEN, "value": value} | arguments))
    assert np.isnan(key).all() and np.isnan(value).all()


def test_what_does_not_fit_is_refused_before_the_library_sees_it(projection):
    key = poisoned(4, HEADS, WIDTH)
    slots = list(range(4)) + [-1, -1]
    frozen = key.copy()
    frozen.flags.writeable = False
    for view, error, word in [
        (View(key), ValueError, "4 places for 6 rows"),
        (View(key, slots=slots[1:]), ValueError, "slots has 5 places"),
        (View(key, slots=np.array(slots, np.int32)), TypeError, "int32"),
        (View(key, slots=np.array(slots * 2)[::2]), ValueError, "without gaps"),
        (View(key, "row head"), ValueError, "name row, head and width once"),
        (View(key, "row head head"), ValueError, "name row, head and width once"),
        (View(key, "batch row head width"), ValueError, "name row, head and width once"),
        (View(key, "group row head width"), ValueError, "that is 4 axes"),
        (View(key, "head row width"), ValueError, "head is 4, and must be 2"),
        (View(key[:, :1]), ValueError, "must be one of"),
        (View(frozen, slots=slots), ValueError, "read-only"),
        (View([key, key]), ValueError, "2 arrays; the call has 1 layers"),
        (np.lib.stride_tricks.as_strided(key, (6, HEADS, WIDTH), (0, 12, 4)), ValueError, "positive"),
    ]:
        with pytest.raises(error, match=word):
            projection.forward(encoder=HIDDEN, key=view)
    unlike = [([key, key[:3]], "all layers' arrays"), ([key], "1 arrays; the call has 2 layers"), ([], "0 arrays")]
    for arrays, word in unlike:
        with pytest.raises(ValueError, match=word):
            projection.forward(encoder=HIDDEN, key=View(arrays, slots=slots), layer_count=LAYERS)
    with pytest.raises(ValueError, match="positive"):
        projection.forward(encoder=np.broadcast_to(HIDDEN[0], HIDDEN.shape))
    for workspace, error in [(np.empty(256, np.float32), TypeError), (np.empty(256, np.uint8)[::2], ValueError)]:
        with pytest.raises(error, match="workspace"):
            projection.forward(encoder=HIDDEN, workspace=workspace)
    assert np.isnan(key).all()


def test_each_head_is_normed_with_its_weight():
    spec = xqkv.Spec(
        weight_dtype=xqkv.Dtype.F32, layer_count=1, decoder_width=ENCODER, encoder_width=ENCODER,
        query_heads=HEADS, key_value_heads=HEADS, head_width=WIDTH, norm=xqkv.Norm.RMS, norm_epsilon=0.5,
    )  # fmt: skip
    weight, lanes = RANDOM.standard_normal((HEADS * WIDTH, ENCODER), np.float32), np.array([1, -2, 0.5], np.float32)
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, spec) as projection:
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, weight)
            update.put(0, xqkv.Part.QUERY, lanes, kind=xqkv.Kind.NORM)
        heads = (HIDDEN.astype(np.float64) @ weight.T.astype(np.float64)).reshape(ROWS, HEADS, WIDTH)
        exact = heads / np.sqrt((heads**2).mean(axis=-1, keepdims=True) + 0.5) * lanes
        assert np.allclose(projection.forward(HIDDEN).query, exact, rtol=1e-5)
        with pytest.raises(xqkv.XqkvError, match="norm"):
            projection.forward(HIDDEN, query=View(np.zeros((ROWS, HEADS, WIDTH), np.float32), accumulate=True))
