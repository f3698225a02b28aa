"""Holds examples/whisper against numpy: its expected results are what its weights and inputs give in f64."""

import json
import sys

import numpy as np
from checkpoints import ROOT, tensors

CHECKPOINT = ROOT / "examples" / "whisper"
def main() -> int:
    model, io = tensors(CHECKPOINT / "model.safetensors"), tensors(CHECKPOINT / "io.safetensors")
    failures = 0
    for layer in range(json.loads((CHECKPOINT / "config.json").read_text())["decoder_layers"]):
        for part in ("query", "key", "value"):
            rows = io[f"layers.{layer}.decoder"] if part == "query" else io["encoder"]
            stem = f"model.decoder.layers.{layer}.encoder_attn.{part[0]}_proj"
            exact = rows @ model[f"{stem}.weight"].T + model.get(f"{stem}.bias", 0.0)
            expected = io[f"layers.{layer}.{part}"]
            # The expected values were stored in f32: half a unit in the last place.
            error = np.max(np.abs(expected - exact) / (np.abs(exact) * 2.0**-24 + 1e-12))
            good = expected.shape == exact.shape and error <= 1.0
            good &= (f"{stem}.bias" in model) == (part != "key")
            failures += not good
            print(f"layer {layer} {part:<5} {expected.shape}  error/bound {error:.3f}  {'ok' if good else 'WRONG'}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
