#!/usr/bin/env python3
"""Puts the steps of a run, the benchmark, and what machine it was into one JSON record, and prints the table."""

import ctypes
import datetime
import json
import os
import subprocess
import sys
from pathlib import Path

import nccl_version

# A step with a verdict that begins otherwise has failed, and so has the run.
GOOD = ("passed", "not there", "SKIPPED")


def steps_of(folder: Path) -> list[dict]:
    """The lines that run.sh has noted."""
    lines = (line.split("\t") for line in (folder / "steps.tsv").read_text().splitlines())
    return [{"name": name, "verdict": verdict, "seconds": int(seconds)} for name, verdict, seconds in lines]


def gpu() -> list[str]:
    """The cards and their driver as nvidia-smi names them."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []


def cublaslt_version() -> int | None:
    """Of the library that xqkv was told to load."""
    try:
        library = ctypes.CDLL(os.environ.get("XQKV_CUBLASLT_LIBRARY", "libcublasLt.so"))
        library.cublasLtGetVersion.restype = ctypes.c_size_t
        return int(library.cublasLtGetVersion())
    except (OSError, AttributeError):
        return None


def torch_version() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return str(torch.__version__)


def read_json(path: Path) -> object:
    """What a step has written, or None."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def record(folder: Path, is_simulated: bool) -> dict:
    """Everything; a simulated run names no GPU, since nothing of it ran on one."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "simulated": is_simulated,
        "gpu": [] if is_simulated else gpu(),
        "cublaslt": None if is_simulated else cublaslt_version(),
        "nccl": nccl_version.version(),
        "torch": None if is_simulated else torch_version(),
        "steps": steps_of(folder),
        "benchmark": read_json(folder / "bench.json"),
    }


def show(made: dict) -> bool:
    """Prints what failed and the counts; whether all is well."""
    failed = [step for step in made["steps"] if not step["verdict"].startswith(GOOD)]
    where = "the simulated GPU" if made["simulated"] else ", ".join(made["gpu"]) or "no GPU that nvidia-smi knows"
    print(f"\n{made['date']} on {where}; cuBLASLt {made['cublaslt']}, NCCL {made['nccl']}, torch {made['torch']}")
    for step in failed:
        print(f"{step['name']:<34} {step['verdict']}")
    passed = sum(step["verdict"] == "passed" for step in made["steps"])
    print(f"{passed} passed, {len(made['steps']) - passed - len(failed)} not run, {len(failed)} failed")
    return not failed and bool(made["steps"])


def main() -> int:
    folder = Path(sys.argv[1])
    made = record(folder, sys.argv[2] == "yes")
    (folder / "record.json").write_text(json.dumps(made, indent=1) + "\n")
    return 0 if show(made) else 1


if __name__ == "__main__":
    sys.exit(main())
