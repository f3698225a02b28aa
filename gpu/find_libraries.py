#!/usr/bin/env python3
"""Prints the variables that tell xqkv where cuBLASLt and NCCL lie inside of Python packages, torch's own first.

    eval "$(python3 find_libraries.py)"

A variable that is already set stays, and a library that no package has is left to the loader's own search.
"""

import os
import shlex
import sys
from pathlib import Path

VARIABLES = {"XQKV_CUBLASLT_LIBRARY": "libcublasLt.so.*", "XQKV_NCCL_LIBRARY": "libnccl.so.*"}
# In the order of torch's own search: its folder, then NVIDIA's wheels, per library or (CUDA 13) all in one.
FOLDERS = ("torch/lib", "nvidia/*/lib")


def versions(name: str) -> list[int]:
    """The numbers behind .so, for the newest to be the largest."""
    return [int(part) for part in name.split(".so.")[-1].split(".") if part.isdigit()]


def find(pattern: str, places: list[str]) -> Path | None:
    """The library in the first place and folder that has one; of several the newest."""
    for place in places:
        for folder in FOLDERS:
            found = [path for path in Path(place or ".").glob(f"{folder}/{pattern}") if versions(path.name)]
            if found:
                return max(found, key=lambda path: versions(path.name)).resolve()
    return None


def assignments(places: list[str]) -> list[str]:
    """Lines for a shell."""
    found = {name: find(pattern, places) for name, pattern in VARIABLES.items() if name not in os.environ}
    return [f"export {name}={shlex.quote(str(path))}" for name, path in found.items() if path]


if __name__ == "__main__":
    print("\n".join(assignments(sys.path)))
