#!/usr/bin/env python3
"""Compares xqkv with its peers on this machine: paired ratios of times, a table and a plot."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import report
import shapes

FOLDER = Path(__file__).resolve().parent
NAMES = (
    "xqkv", "torch linear", "torch prepacked", "onnxruntime", "openvino", "onednn", "ctranslate2", "ctranslate2-int8", "numpy",
)  # fmt: skip


class Peer:
    """A candidate's process, stopped while it is another's turn: threads that look for work would take its CPU."""

    def __init__(self, name: str, threads: int, script: str = "worker.py"):
        variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        self.process = subprocess.Popen(
            [sys.executable, str(FOLDER / script), name, str(threads)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=os.environ | dict.fromkeys(variables, str(threads)),
        )  # fmt: skip
        self.reason = self.read().get("reason")
        self.stop()

    def read(self) -> dict:
        """The process's answer."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"reason": f"ended with {self.process.wait()}"}

    def stop(self) -> None:
        """Until it is asked."""
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, order: dict) -> dict:
        """Lets it do something."""
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            answer = self.read()
        except BrokenPipeError:
            answer = {"reason": "its process ended"}
        self.stop()
        return answer

    def end(self) -> None:
        """For good."""
        self.process.kill()


def measure(case: shapes.Case, threads: int, rounds: int) -> dict:
    """Seconds of each candidate round by round, or why there are none."""
    peers, found = {}, {}
    for name in NAMES:
        peer = Peer(name, threads)
        answer = {"reason": peer.reason} if peer.reason else peer.ask({"do": "prepare", "case": vars(case)})
        if answer.get("error", 2.0) <= 1.0:
            peers[name] = peer
            continue
        found[name] = answer.get("reason") or f"wrong: {answer['error']:.3g} of the bound"
        peer.end()
    samples: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            samples[name].append(peer.ask({"do": "sample"}).get("seconds", float("nan")))
    for peer in peers.values():
        peer.end()
    return found | samples


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", default=report.DTYPES, choices=report.DTYPES)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16, 32, 64])
    names = [model.name for model in shapes.MODELS]
    parser.add_argument("--models", nargs="+", default=names, choices=names)
    parser.add_argument("--output", type=Path, default=FOLDER / "peers", help="without its ending")
    return parser.parse_args()


def cpu() -> str:
    """As the system names it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    """Measures case by case, and writes what it has after each."""
    given = arguments()
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    title = f"{date}, {cpu()}, {given.threads} threads, {given.rounds} rounds, load {os.getloadavg()[0]:.1f} before"
    measured = []
    for case in shapes.cases(given.dtypes, given.rows, given.models):
        found = measure(case, given.threads, given.rounds)
        measured.append((case, found))
        times = {name: statistics.median(seconds) for name, seconds in found.items() if isinstance(seconds, list)}
        print(case.name, {name: f"{1e6 * seconds:.0f} us" for name, seconds in times.items()}, flush=True)
        report.write(given.output, title, measured)


if __name__ == "__main__":
    main()
