#!/usr/bin/env python3
"""Cuts a Hugging Face checkpoint to its cross-attention tensors and a few others.

The files keep their format, names and metadata; config.json and io.safetensors are copied. Only
the standard library is needed: a safetensors file is a header's length in 8 little-endian bytes,
the header in JSON, and the tensors' bytes.
"""

import argparse
import json
import shutil
from pathlib import Path

ATTENTION = ("encoder_attn.", "EncDecAttention.", "cross_attn.")
# So that a reader has something to skip.
OTHERS = ("decoder.layer_norm", "encoder_attn_layer_norm", "final_layer_norm", "model.norm.weight")


def is_kept(name: str) -> bool:
    return any(word in name for word in ATTENTION + OTHERS)


def read(path: Path) -> tuple[dict, bytes]:
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write(path: Path, header: dict, data: bytes) -> None:
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def cut(source: Path, target: Path) -> list[str]:
    """Writes what is kept of one file, and gives the names; writes nothing if that is nothing."""
    header, data = read(source)
    kept = {name: info for name, info in header.items() if is_kept(name)}
    short, pieces, offset = {}, [], 0
    if "__metadata__" in header:
        short["__metadata__"] = header["__metadata__"]
    for name, info in sorted(kept.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = info["data_offsets"]
        pieces.append(data[begin:end])
        short[name] = {**info, "data_offsets": [offset, offset + end - begin]}
        offset += end - begin
    if kept:
        write(target, short, b"".join(pieces))
    return list(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    source, target = arguments.source, arguments.target
    target.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "io.safetensors"):
        shutil.copyfile(source / name, target / name)
    weight_map = {}
    for path in sorted(source.glob("model*.safetensors")):
        weight_map |= dict.fromkeys(cut(path, target / path.name), path.name)
    index = "model.safetensors.index.json"
    if (source / index).exists():
        listing = json.loads((source / index).read_text())
        listing["weight_map"] = dict(sorted(weight_map.items()))
        (target / index).write_text(json.dumps(listing, indent=2) + "\n")


if __name__ == "__main__":
    main()
