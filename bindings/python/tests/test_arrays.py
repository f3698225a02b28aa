"""Arrays go in and out without copies, in any layout that strides can tell."""

import ml_dtypes
import numpy as np
import pytest
import xqkv

DECODER, ENCODER, HEADS, WIDTH = 5, 7, 2, 3
ROWS = np.arange(6 * ENCODER, dtype=np.float32).reshape(6, ENCODER) % 5 - 2
WEIGHT = np.arange(HEADS * WIDTH * ENCODER, dtype=np.float32).reshape(HEADS * WIDTH, ENCODER) % 7 - 3
EXACT = ROWS @ WEIGHT.T


@pytest.fixture
def projection():
    spec = xqkv.Spec(
        weight_dtype=xqkv.Dtype.F32, layer_count=1, decoder_width=DECODER, encoder_width=ENCODER,
        query_heads=HEADS, key_value_heads=HEADS, head_width=WIDTH,
    )  # fmt: skip
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, spec) as projection:
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, WEIGHT[:, :DECODER])
            update.put(0, xqkv.Part.KEY_VALUE, np.vstack([WEIGHT, -WEIGHT]))
        yield projection
    assert xqkv.handle_count() == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_every_dtype_goes_in_and_out(projection, dtype):
    result = projection.forward(encoder=ROWS.astype(dtype), dtype=dtype)
    assert result.key.dtype == dtype and result.query is None
    assert np.array_equal(result.key.reshape(6, -1).astype(np.float32), EXACT)
    assert np.array_equal(result.value.reshape(6, -1).astype(np.float32), -EXACT)


def test_given_outputs_are_written_where_they_are(projection):
    fused = np.full((6, 2, HEADS, WIDTH), np.nan, np.float32)
    result = projection.forward(encoder=ROWS, key=fused[:, 0], value=fused[:, 1])
    assert np.shares_memory(result.key, fused)
    assert np.array_equal(fused[:, 0].reshape(6, -1), EXACT) and np.array_equal(fused[:, 1].reshape(6, -1), -EXACT)


def test_head_major_and_transposed_outputs(projection):
    key, value = np.empty((HEADS, 6, WIDTH), np.float32), np.empty((HEADS, WIDTH, 6), np.float32)
    projection.forward(encoder=ROWS, key=key.transpose(1, 0, 2), value=value.transpose(2, 0, 1))
    assert np.array_equal(key, EXACT.reshape(6, HEADS, WIDTH).transpose(1, 0, 2))
    assert np.array_equal(value, -EXACT.reshape(6, HEADS, WIDTH).transpose(1, 2, 0))


def test_rows_may_be_every_second_of_a_buffer(projection):
    wide = np.full((12, 9), np.nan, np.float32)
    wide[::2, :ENCODER] = ROWS
    assert np.array_equal(projection.forward(encoder=wide[::2, :ENCODER]).key.reshape(6, -1), EXACT)


class Foreign:
    """Speaks DLPack and nothing else, as other libraries' tensors may."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_tensors_of_other_libraries_come_by_dlpack(projection):
    out = np.empty((6, HEADS, WIDTH), np.float32)
    result = projection.forward(encoder=Foreign(ROWS), key=Foreign(out))
    assert np.shares_memory(result.key, out) and np.array_equal(out.reshape(6, -1), EXACT)


def test_torch_tensors_come_without_a_copy(projection):
    torch = pytest.importorskip("torch")
    out = torch.empty((6, HEADS, WIDTH), dtype=torch.bfloat16)
    projection.forward(encoder=torch.from_numpy(ROWS).to(torch.bfloat16), key=out)
    assert np.array_equal(out.float().numpy().reshape(6, -1), EXACT)


def test_what_does_not_fit_is_refused_before_the_library_sees_it(projection):
    good = np.zeros((6, HEADS, WIDTH), np.float32)
    frozen = good.copy()
    frozen.flags.writeable = False
    for arguments, error, word in [
        ({"encoder": ROWS[:, :3]}, ValueError, "must be"),
        ({"encoder": ROWS.astype(np.float64)}, TypeError, "float64"),
        ({"encoder": ROWS[::-1]}, ValueError, "positive"),
        ({"encoder": np.asfortranarray(ROWS)}, ValueError, "next to each other"),
        ({"encoder": ROWS, "key": good[:5]}, ValueError, "must be one of"),
        ({"encoder": ROWS, "key": frozen}, ValueError, "read-only"),
        ({"encoder": ROWS, "key": good, "value": good}, xqkv.InvalidArgument, "OVERLAP"),
    ]:
        with pytest.raises(error, match=word):
            projection.forward(**arguments)
    assert not good.any()
