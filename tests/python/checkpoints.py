"""Tensors of safetensors files as float64, and the checkpoints of the project."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np

ROOT = Path(__file__).parents[2]
CHECKPOINTS = [ROOT / "examples" / "whisper", *(ROOT / "tests" / "data" / name for name in ("bart", "t5", "mllama"))]
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
