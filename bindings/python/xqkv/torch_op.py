"""A projection as a torch operator, so that torch.compile keeps it in its graph. Needs torch; CPU tensors, or
CUDA tensors on the current stream.

    handle = register(projection)
    query, key, value = cross_qkv(decoder, encoder, handle, layer)

An absent encoder is None, and its key and value then have 0 rows.
"""

from __future__ import annotations

import itertools

import torch

from .projection import Projection

_projections: dict[int, Projection] = {}
_numbers = itertools.count(1)


def register(projection: Projection) -> int:
    """A number that stands for a projection in a graph; it is kept alive until `unregister`."""
    number = next(_numbers)
    _projections[number] = projection
    return number


def unregister(number: int) -> None:
    """Lets go of a projection."""
    _projections.pop(number)


def _outputs(
    decoder: torch.Tensor, encoder: torch.Tensor | None, number: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Empty outputs of the right shapes, in the decoder's dtype."""
    projection = _projections[number]
    spec, shard = projection.spec, projection.shard
    rows = 0 if encoder is None else encoder.shape[0]
    value_width = spec.value_head_width or spec.head_width
    heads = shard.key_value_head_count
    return (
        decoder.new_empty((decoder.shape[0], shard.query_head_count, spec.head_width)),
        decoder.new_empty((rows, heads, spec.head_width)),
        decoder.new_empty((rows, heads, value_width)),
    )


@torch.library.custom_op("xqkv::cross_qkv", mutates_args=())
def cross_qkv(
    decoder: torch.Tensor, encoder: torch.Tensor | None, number: int, layer: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Q of the decoder's rows, K and V of the encoder's if there are any: [rows, heads, width] of this rank's heads."""
    query, key, value = _outputs(decoder, encoder, number)
    stream = torch.cuda.current_stream(decoder.device).cuda_stream if decoder.is_cuda else 0
    _projections[number].forward(decoder, encoder, query=query, key=key, value=value, layer=layer, stream=stream)
    return query, key, value


@cross_qkv.register_fake
def _(
    decoder: torch.Tensor, encoder: torch.Tensor | None, number: int, layer: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _outputs(decoder, encoder, number)
