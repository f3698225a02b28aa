#!/usr/bin/env python3
"""Measures xqkv beside torch on one GPU: decode steps, prefills, and the cache fill of all layers.

    python3 bench.py [--seconds 220] [--output bench.json]
    python3 bench.py --self-test        without torch, a GPU or the library

Contenders of a case run in one process on the same inputs, their samples interleaved. A sample is one replay of a CUDA
graph that goes around so many sets of weights that each has left the L2 cache when its turn comes, timed with events;
so the time is the GPU's and not Python's. Results are compared before anything is timed.
"""

import argparse
import json
import sys
import time
import unittest
from pathlib import Path

import sampling
from shapes import CELLS, DECODE_ROWS, Cell, floor_seconds

ROUNDS = 30
# Decoder rows of a prefill: a prompt of a few tokens.
PROMPT_ROWS = 4


def measure(contenders: dict, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of each sample of each contender."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for name in sampling.interleaved(list(contenders), rounds):
        samples[name].append(contenders[name].seconds())
    return samples


def report(samples: dict[str, list[float]], floor: float, layers: int) -> dict:
    """Per layer, since a sample is a round of several: medians, how xqkv compares, and the share of the floor reached."""
    per_layer = {name: [seconds / layers for seconds in values] for name, values in samples.items()}
    made = {name: sampling.summary(values) for name, values in per_layer.items()}
    for name, found in made.items():
        found["floor_share"] = floor / found["median"]
        found["xqkv_speedup"] = sampling.speedup(per_layer["xqkv"], per_layer[name])
    return made


def cases(cell: Cell) -> list[dict]:
    """What is measured of a cell: rows of both sides, and whether all layers are filled at once."""
    decode = [{"decoder_rows": rows, "encoder_rows": 0, "fill": False} for rows in DECODE_ROWS]
    prompts = [{"decoder_rows": PROMPT_ROWS, "encoder_rows": rows, "fill": False} for rows in cell.model.encoder_rows]
    fills = [{"decoder_rows": 0, "encoder_rows": rows, "fill": True} for rows in cell.model.encoder_rows]
    return decode + prompts + fills


def run_case(workbench, case: dict, rates: dict) -> dict:
    """One case, or why there is no figure of it: the others are measured all the same."""
    named = {"model": workbench.cell.model.name, "ranks": workbench.cell.ranks, **case}
    rows = case["decoder_rows"], case["encoder_rows"]
    work, moved = workbench.cell.multiply_adds(*rows), workbench.cell.necessary_bytes(*rows)
    floor = floor_seconds(work, moved, rates["multiply_adds_per_second"], rates["copy_bytes_per_second"])
    try:
        contenders, layers = workbench.contenders(**case)
        samples = measure(contenders)
    except Exception as reason:
        return {**named, "error": f"{type(reason).__name__}: {reason}"}
    return {**named, "floor_seconds": floor, "layers": layers, "seconds": report(samples, floor, layers)}


def show(result: dict) -> None:
    """One line: microseconds a layer, and the speedup with its interval."""
    shape = "{model} ranks {ranks} decoder {decoder_rows} encoder {encoder_rows}".format(**result)
    if "error" in result:
        print(f"{shape}: {result['error']}")
        return
    figures = (
        f"{name} {found['median'] * 1e6:.1f} us ({found['xqkv_speedup']['low']:.2f}-"
        f"{found['xqkv_speedup']['high']:.2f}x, {found['floor_share']:.0%} of the floor)"
        for name, found in result["seconds"].items()
    )
    print(f"{shape}: " + ", ".join(figures))


def run(seconds: float, output: Path | None) -> int:
    """All cells until the time is over; what was left out is recorded as well."""
    from contenders import Workbench, device, rates

    deadline, results, left_out = time.monotonic() + seconds, [], []
    record = {"device": device(), "rates": rates(), "results": results, "left_out": left_out}
    for cell in (Cell(model, ranks) for model, ranks in CELLS):
        for workbench, case in Workbench.each(cell, cases(cell)):
            if time.monotonic() > deadline:
                left_out.append({"model": cell.model.name, "ranks": cell.ranks, **case})
                continue
            results.append(run_case(workbench, case, record["rates"]))
            show(results[-1])
            if output:
                output.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if not results or any("error" in result for result in results) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=220)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--self-test", action="store_true")
    options = parser.parse_args()
    if options.self_test:
        tests = unittest.defaultTestLoader.loadTestsFromName("self_test")
        return 0 if unittest.TextTestRunner().run(tests).wasSuccessful() else 1
    return run(options.seconds, options.output)


if __name__ == "__main__":
    sys.exit(main())
