#!/usr/bin/env python3
"""Compares whole steps, all cross-attention layers of a model, with torch's workaround and with torch's split."""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
from pathlib import Path

from run import FOLDER, Peer, cpu

NAMES = ("whisper-large-v3", "t5-xxl", "mllama-11b")
# Decoder rows, and whether the encoder's are new.
STEPS = ((1, False), (16, False), (4, True))
WAYS = {"xqkv": ("xqkv",), "torch": ("workaround", "split")}
# Steps in a sample; a prefill is long enough alone.
DECODE_STEPS = 7


def measure(order: dict, threads: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, round by round."""
    peers = {name: Peer(name, threads, "steps_worker.py") for name in WAYS}
    for name, peer in peers.items():
        answer = peer.ask(order | {"do": "prepare", "ways": WAYS[name]})
        if not all(error <= 1.0 for error in answer.get("errors", {name: 2.0}).values()):
            raise SystemExit(f"{name}: {answer}")
    samples: dict[str, list[float]] = {way: [] for ways in WAYS.values() for way in ways}
    count = 1 if order["prefill"] else DECODE_STEPS
    for _ in range(rounds):
        for name, peer in peers.items():
            for way in WAYS[name]:
                answer = peer.ask({"do": "sample", "way": way, "count": count})
                samples[way].append(answer["seconds"])
    for peer in peers.values():
        peer.end()
    return samples


def line(order: dict, samples: dict[str, list[float]]) -> str:
    """A row of the table: medians in milliseconds, then ratios paired by round."""
    middles = [statistics.median(samples[way]) * 1e3 for way in samples]
    ratios = []
    for one, other in (("workaround", "xqkv"), ("split", "xqkv"), ("workaround", "split")):
        pairs = [a / b for a, b in zip(samples[one], samples[other], strict=True)]
        ratios.append(f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
    kind = "prefill" if order["prefill"] else "decode"
    name = f"{order['model']} {order['dtype']} {kind}, {order['rows']} rows"
    return f"| {name} | " + " | ".join([f"{middle:.2f}" for middle in middles] + ratios) + " |"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16", "f16"])
    parser.add_argument("--models", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--output", type=Path, default=FOLDER / "steps.md")
    return parser.parse_args()


def main() -> None:
    """Measures step by step, and writes what it has after each."""
    given = arguments()
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    load = os.getloadavg()[0]
    title = f"# Steps: {date}, {cpu()}, {given.threads} threads, {given.rounds} rounds, load {load:.1f} before"
    names = ["xqkv", "torch workaround", "torch split", "workaround / xqkv", "split / xqkv", "workaround / split"]
    lines = [title, "", "| all layers (median ms) | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for model in given.models:
        for dtype in given.dtypes:
            for rows, prefill in STEPS:
                order = {"model": model, "dtype": dtype, "rows": rows, "prefill": prefill}
                lines.append(line(order, measure(order, given.threads, given.rounds)))
                print(lines[-1], flush=True)
                given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
