"""Holds examples/whisper against numpy: its expected results are what its weights and inputs give in f64."""

import json
import sys
from pathlib import Path

import ml_dtypes
import numpy as np

CHECKPOINT = Path(__file__).parents[2] / "examples" / "whisper"
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def tensors(path: Path) -> dict[str, np.ndarray]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__", None)

    def array(info: dict) -> np.ndarray:
        begin, end = info["data_offsets"]
        return np.frombuffer(data[begin:end], DTYPES[info["dtype"]]).reshape(info["shape"])

    return {name: array(info).astype(np.float64) for name, info in header.items()}


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
