"""Pages, batches, slots, a buffer for each layer, sums and row lists in a device's memory, on the simulated GPU."""

import numpy as np
import pytest
import simulated_device
import xqkv
from simulated_device import Exported, Interface
from xqkv import Input, View

if not simulated_device.IS_SIMULATED:
    pytest.skip("XQKV_CUDA_LIBRARY does not name libgpusim.so", allow_module_level=True)

LAYERS, ROWS, ENCODER, HEADS, WIDTH = 2, 6, 16, 2, 8
HIDDEN = np.arange(ROWS * ENCODER, dtype=np.float32).reshape(ROWS, ENCODER) % 5 - 2
WEIGHT = np.arange(2 * 2 * ENCODER * ENCODER, dtype=np.float32).reshape(LAYERS, 2 * ENCODER, ENCODER) % 7 - 3
# Small integers, so that every order of summing gives these.
BOTH = (HIDDEN @ WEIGHT.transpose(0, 2, 1)).reshape(LAYERS, ROWS, 2, HEADS, WIDTH)
KEY, VALUE = BOTH[:, :, 0], BOTH[:, :, 1]


@pytest.fixture
def projection(device):
    spec = xqkv.Spec(
        weight_dtype=xqkv.Dtype.F32, layer_count=LAYERS, decoder_width=ENCODER, encoder_width=ENCODER,
        query_heads=HEADS, key_value_heads=HEADS, head_width=WIDTH,
    )  # fmt: skip
    with xqkv.Context(backend=xqkv.Backend.CUDA) as context, xqkv.Projection(context, spec) as projection:
        with projection.update() as update:
            for layer in range(LAYERS):
                update.put(layer, xqkv.Part.KEY_VALUE, WEIGHT[layer])
        yield projection
    assert xqkv.handle_count() == 0


def memory(device, *shape):
    return device.put(np.full(shape, np.nan, np.float32))


def run(device, projection, **call):
    """Runs a call in the workspace that its plan asks for."""
    call = {"encoder": Interface(device.put(HIDDEN))} | call
    with projection.plan(**call) as plan:
        workspace = device.put(np.zeros(max(plan.workspace.recommended_bytes, 256), np.uint8))
        projection.forward(**call, plan=plan, workspace=Interface(workspace))
        device.wait(0)


@pytest.mark.parametrize("axes", ["layer group row head width", "group layer head row width"])
def test_pages_are_filled_by_slots_in_the_devices_memory(device, projection, axes):
    slots = np.array([9, -1, 3, 0, 5, 11])
    extents = {"layer": LAYERS, "group": 3, "row": 4, "head": HEADS, "width": WIDTH}
    key, value = (memory(device, *(extents[axis] for axis in axes.split())) for _ in range(2))
    listed = Interface(device.put(slots)), Exported(device.put(slots), "int64")
    views = {"key": View(Interface(key), axes, listed[0]), "value": View(Interface(value), axes, listed[1])}
    run(device, projection, layer_count=LAYERS, **views)
    for pages, exact in [(key, KEY), (value, VALUE)]:
        order = [axes.split().index(axis) for axis in extents]
        places = pages.read().transpose(order).reshape(LAYERS, 12, HEADS, WIDTH)
        assert np.array_equal(places[:, slots[slots >= 0]], exact[:, slots >= 0])
        assert np.isnan(np.delete(places, slots[slots >= 0], axis=1)).all()


def test_a_batch_is_head_major_and_transposed(device, projection):
    key, value = memory(device, 3, HEADS, 3, WIDTH), memory(device, 2, HEADS, WIDTH, 3)
    sequences, lanes = View(Interface(key), "group head row width"), View(Interface(value), "group head width row")
    run(device, projection, layer=1, key=sequences, value=lanes)
    written, transposed = key.read(), value.read()
    assert np.array_equal(written[:2], KEY[1].reshape(2, 3, HEADS, WIDTH).transpose(0, 2, 1, 3))
    assert np.isnan(written[2]).all()
    assert np.array_equal(transposed, VALUE[1].reshape(2, 3, HEADS, WIDTH).transpose(0, 2, 3, 1))


def test_each_layer_has_an_array_and_sums_go_on(device, projection):
    keys, value = [memory(device, ROWS, HEADS, WIDTH) for _ in range(LAYERS)], device.put(np.ones_like(VALUE))
    run(
        device, projection, layer_count=LAYERS,
        key=[Interface(keys[0]), Exported(keys[1], xqkv.Dtype.F32)], value=View(Interface(value), accumulate=True),
    )  # fmt: skip
    assert all(np.array_equal(key.read(), exact) for key, exact in zip(keys, KEY))
    assert np.array_equal(value.read(), VALUE + 1)


def test_a_row_list_takes_rows_in_its_order(device, projection):
    rows, key, value = np.array([4, 0, 0]), memory(device, 3, HEADS, WIDTH), memory(device, 3, HEADS, WIDTH)
    listed = Input(Interface(device.put(HIDDEN)), row_list=Interface(device.put(rows)))
    run(device, projection, encoder=listed, key=Interface(key), value=Interface(value))
    assert np.array_equal(key.read(), KEY[0][rows]) and np.array_equal(value.read(), VALUE[0][rows])


def test_lists_workspace_and_indices_of_other_memory_or_type_are_refused(device, projection):
    key, slots = Interface(memory(device, ROWS, HEADS, WIDTH)), np.arange(ROWS)
    rows, host = Interface(device.put(HIDDEN)), np.zeros((ROWS, HEADS, WIDTH), np.float32)
    on_device = Interface(device.put(slots))
    for arguments, error, word in [
        ({"key": View(key, slots=slots)}, TypeError, "key.slots is in host memory"),
        ({"key": View(key, slots=rows)}, TypeError, "it must be int64"),
        ({"key": Interface(device.put(host.astype(np.int64)))}, TypeError, "key is int64"),
        ({"key": [key, host], "layer_count": 2}, TypeError, "key is in host memory"),
        ({"key": key, "value": key, "workspace": np.zeros(256, np.uint8)}, TypeError, "workspace is in host memory"),
        ({"key": key, "value": key, "workspace": rows}, TypeError, "it must be uint8"),
        ({"encoder": Input(rows, row_list=[0])}, TypeError, "encoder.row_list is in host memory"),
    ]:
        with pytest.raises(error, match=word):
            projection.forward(**({"encoder": rows, "value": key} | arguments))
    value = Interface(memory(device, ROWS, HEADS, WIDTH))
    with pytest.raises(xqkv.XqkvError) as caught:
        projection.forward(encoder=rows, key=View(key, slots=on_device), value=value)
    assert caught.value.status == xqkv.Status.WORKSPACE_TOO_SMALL
