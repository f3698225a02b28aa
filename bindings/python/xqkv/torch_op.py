"""A projection as a torch operator, so that torch.compile keeps it in its graph. Needs torch; CPU tensors, or
CUDA tensors on the current stream.

    handle = register(projection)
    query, key, value = cross_qkv(decoder, encoder, handle, layer)

An absent encoder is None, and its key and value then have 0 rows.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import torch

from .projection import Projection


@dataclass
class Registered:
    """A projection, what its calls have executed, and the workspace that they take by rows of either side."""

    projection: Projection
    multiply_adds: int = 0
    workspace_bytes: dict[tuple[int, int], int] = field(default_factory=dict)


_registered: dict[int, Registered] = {}
_numbers = itertools.count(1)


def register(projection: Projection) -> int:
    """A number that stands for a projection in a graph; it is kept alive until `unregister`."""
    number = next(_numbers)
    _registered[number] = Registered(projection)
    return number


def unregister(number: int) -> None:
    """Lets go of a projection."""
    _registered.pop(number)


def multiply_adds(number: int) -> int:
    """How many multiply-adds the operator has executed on a projection since it was registered."""
    return _registered[number].multiply_adds


def _outputs(
    decoder: torch.Tensor, encoder: torch.Tensor | None, number: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Empty outputs of the right shapes, in the decoder's dtype."""
    projection = _registered[number].projection
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
    registered, (query, key, value) = _registered[number], _outputs(decoder, encoder, number)
    outputs: dict[str, Any] = {"query": query, "key": key, "value": value}
    extras = _device_extras(registered, decoder, encoder, outputs) if decoder.is_cuda else {}
    result = registered.projection.forward(decoder, encoder, **outputs, layer=layer, **extras)
    registered.multiply_adds += result.multiply_adds
    return query, key, value


def _device_extras(
    registered: Registered, decoder: torch.Tensor, encoder: torch.Tensor | None, outputs: dict[str, Any]
) -> dict[str, Any]:
    """The current stream, and workspace that torch may give to others once the stream's work is behind the call."""
    rows = decoder.shape[0], 0 if encoder is None else encoder.shape[0]
    if rows not in registered.workspace_bytes:
        with registered.projection.plan(decoder, encoder, **outputs) as plan:
            registered.workspace_bytes[rows] = plan.workspace.minimum_bytes
    workspace = decoder.new_empty(registered.workspace_bytes[rows], dtype=torch.uint8)
    stream = torch.cuda.current_stream(decoder.device).cuda_stream
    return {"stream": stream, "workspace": workspace if workspace.numel() > 0 else None}


@cross_qkv.register_fake
def _(
    decoder: torch.Tensor, encoder: torch.Tensor | None, number: int, layer: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _outputs(decoder, encoder, number)
