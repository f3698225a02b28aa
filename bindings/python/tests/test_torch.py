"""The torch operator: one graph, and the bits of the plain call."""

import numpy as np
import pytest
import xqkv

torch = pytest.importorskip("torch")
from xqkv import torch_op  # noqa: E402


@pytest.fixture
def number():
    spec = xqkv.Spec(
        weight_dtype=xqkv.Dtype.F32, layer_count=1, decoder_width=16, encoder_width=16,
        query_heads=2, key_value_heads=2, head_width=8,
    )  # fmt: skip
    weight = np.random.default_rng(0).standard_normal((48, 16), np.float32)
    with xqkv.Context(thread_count=1) as context, xqkv.Projection(context, spec) as projection:
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY_KEY_VALUE, weight)
        number = torch_op.register(projection)
        yield number
        torch_op.unregister(number)


def layer(number, decoder, encoder):
    """A cross-attention layer around the projection."""
    query, key, value = torch_op.cross_qkv(decoder * 2.0, encoder, number, 0)
    scores = torch.einsum("qhd,khd->hqk", query, key)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), value).sum(-1)


def test_a_compiled_layer_is_one_graph_with_the_same_result(number):
    decoder, encoder = torch.randn(3, 16), torch.randn(7, 16)
    torch._dynamo.reset()
    explained = torch._dynamo.explain(layer)(number, decoder, encoder)
    assert explained.graph_break_count == 0 and explained.graph_count == 1
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(number, decoder, encoder), layer(number, decoder, encoder))


def test_the_operator_keeps_torchs_rules(number):
    decoder, encoder = torch.randn(3, 16), torch.randn(7, 16)
    torch.library.opcheck(torch_op.cross_qkv, (decoder, encoder, number, 0))
    torch.library.opcheck(torch_op.cross_qkv, (decoder, None, number, 0))


def test_its_bits_are_those_of_the_plain_call(number):
    decoder, encoder = torch.randn(3, 16), torch.randn(7, 16)
    plain = torch_op._registered[number].projection.forward(decoder, encoder)
    results = torch_op.cross_qkv(decoder, encoder, number, 0)
    for result, expected in zip(results, (plain.query, plain.key, plain.value)):
        assert np.array_equal(result.numpy().view(np.int32), expected.view(np.int32))
    assert torch_op.cross_qkv(decoder, None, number, 0)[1].shape == (0, 2, 8)


def test_it_counts_what_its_calls_have_executed(number):
    torch_op.cross_qkv(torch.randn(3, 16), torch.randn(7, 16), number, 0)
    assert torch_op.multiply_adds(number) == (3 * 16 + 7 * 32) * 16
    torch_op.cross_qkv(torch.randn(1, 16), None, number, 0)
    assert torch_op.multiply_adds(number) == (4 * 16 + 7 * 32) * 16
