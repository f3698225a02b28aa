"""The main job on every checkpoint of the project, by any number of ranks."""

from pathlib import Path

import numpy as np
import pytest
import xqkv
from checkpoints import CHECKPOINTS, tensors


def error_over_bound(result: np.ndarray, exact: np.ndarray, rows: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """The largest error in units of what the header allows, and half a unit of the stored f32 expectation."""
    steps = (weight.shape[1] + 2) * 2.0**-24
    magnitude = np.abs(rows) @ np.abs(weight).T + np.abs(bias)
    bound = steps / (1 - steps) * magnitude + 2 * np.abs(exact) * 2.0**-24
    return float(np.max(np.abs(result - exact) / bound))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("folder", CHECKPOINTS, ids=lambda folder: folder.name)
def test_ranks_project_what_the_model_did(folder: Path, ranks: int) -> None:
    checkpoint = xqkv.Checkpoint(folder)
    spec = xqkv.Spec.read(checkpoint)
    # What the fixtures have recorded is before mllama's norm.
    spec.norm, spec.norm_epsilon, spec.norm_rounds_first = 0, 0, 0
    places = checkpoint.report(spec)["used"]
    io = tensors(folder / "io.safetensors")
    model = {}
    for path in sorted(folder.glob("model*.safetensors")):
        model |= tensors(path)
    with xqkv.Context(thread_count=2) as context:
        projections = [
            xqkv.Projection.load(context, spec, checkpoint, xqkv.Split.balanced(spec, rank, ranks)) for rank in range(ranks)
        ]
    for layer in range(spec.layer_count):
        number = next(place["checkpoint_layer"] for place in places if place["layer"] == layer)
        inputs = {"decoder": io[f"layers.{number}.decoder"], "encoder": io["encoder"]}
        inputs = {name: rows.astype(np.float32) for name, rows in inputs.items()}
        columns = {part: io[f"layers.{number}.{part}"].shape[1] for part in ("query", "key", "value")}
        rows = {"query": len(inputs["decoder"]), "key": len(inputs["encoder"]), "value": len(inputs["encoder"])}
        out = {part: np.full((rows[part], columns[part]), np.nan, np.float32) for part in columns}
        executed = 0
        for projection in projections:
            shard, width = projection.shard, spec.head_width
            heads = {"query": (shard.query_head_begin, shard.query_head_count)}
            heads["key"] = heads["value"] = (shard.key_value_head_begin, shard.key_value_head_count)
            own = {part: out[part][:, first * width : (first + count) * width] for part, (first, count) in heads.items()}
            executed += projection.forward(**inputs, **own, layer=layer).multiply_adds
            step = projection.forward(decoder=inputs["decoder"][:1], layer=layer)
            assert step.key is None and step.value is None
            assert np.array_equal(step.query.reshape(-1), own["query"][0])
            assert step.multiply_adds == shard.query_columns * spec.decoder_width
        for part in columns:
            named = {place["kind"]: model[place["name"]] for place in places if (place["layer"], place["part"]) == (layer, part)}
            given = inputs["decoder" if part == "query" else "encoder"].astype(np.float64)
            bias = named.get("bias", np.zeros(columns[part]))
            assert error_over_bound(out[part], io[f"layers.{number}.{part}"], given, named["weight"], bias) <= 1
        uncut = rows["query"] * columns["query"] * spec.decoder_width
        uncut += rows["key"] * (columns["key"] + columns["value"]) * spec.encoder_width
        assert executed == uncut or ranks > spec.key_value_heads and executed > uncut
    for projection in projections:
        projection.close()
    assert xqkv.handle_count() == 0
