"""One candidate in a process of its own, which does what each line on its standard input says."""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
from candidates import CANDIDATES, Unsupported
from native import NATIVE
from shapes import Case

# A sample is repeated until it takes so long.
LEAST_SECONDS = 0.04


def exact_in_bf16(random: np.random.Generator, shape: tuple, scale: float) -> np.ndarray:
    """Numbers that each of the dtypes has, so that all candidates multiply the same."""
    numbers = random.integers(-127, 128, shape).astype(np.float32) / 128
    return np.ascontiguousarray(numbers * np.float32(scale))


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same weight, bias and rows for all candidates."""
    random = np.random.default_rng(7)
    weight = exact_in_bf16(random, (case.outputs, case.inputs), 1 / 16)
    return weight, exact_in_bf16(random, (case.outputs,), 1), exact_in_bf16(random, (case.rows, case.inputs), 1)


def over_bound(dtype: str, result: np.ndarray, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> float:
    """Some rows' error against f64: the rounding of sums and of the result, for any order of summation."""
    some = slice(0, 8)
    exact = rows[some].astype(np.float64) @ weight.T.astype(np.float64) + bias
    magnitude = np.abs(rows[some]).astype(np.float64) @ np.abs(weight.T).astype(np.float64) + np.abs(bias)
    if dtype == "int8":
        return float(np.max(np.abs(result[some] - exact) / integer_bound(weight, rows)))
    epsilon = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}[dtype]
    # torch rounds f16 sums more than once; others keep f32.
    bound = rows.shape[1] * 2.0**-24 * magnitude + 4 * epsilon * (np.abs(exact) + magnitude / 64)
    return float(np.max(np.abs(result[some] - exact) / bound))


def integer_bound(weight: np.ndarray, rows: np.ndarray) -> float:
    """Half a step of the rows' integers of 127 and of the weights' of 63, with the largest scales there are."""
    largest, size = np.max(np.abs(rows)) * np.max(np.abs(weight)), rows.shape[1]
    return float(largest * size * (0.5 / 127 + 0.5 / 63) * 1.01)


class Worker:
    """A candidate and its case."""

    def __init__(self, name: str, threads: int):
        self.candidate, self.next = (CANDIDATES | NATIVE)[name](threads), 0

    def prepare(self, case: Case) -> float:
        """Makes everything ready, and tells the error of a first call over its bound."""
        weight, bias, rows = inputs(case)
        if case.dtype not in self.candidate.dtypes:
            raise Unsupported(f"has no {case.dtype} product on a CPU, or none that is timed here")
        self.candidate.prepare(case, weight, bias, rows)
        self.case = case
        self.candidate.run(0)
        return over_bound(case.dtype, self.candidate.result(), weight, bias, rows)

    def sample(self) -> float:
        """Median seconds of a call: others' turns on a CPU stop a team of threads for longer than a call takes."""
        times: list[float] = []
        while sum(times) < LEAST_SECONDS:
            begun = time.perf_counter()
            self.candidate.run(self.next)
            times.append(time.perf_counter() - begun)
            self.next = (self.next + 1) % self.case.copies
        # The first calls of many wake threads that were stopped.
        return statistics.median(times[len(times) // 4 :]) / self.candidate.products

    def obey(self, order: dict) -> dict:
        """What an order asks for."""
        if order["do"] == "sample":
            return {"seconds": self.sample()}
        self.next = 0
        try:
            return {"error": self.prepare(Case(**order["case"]))}
        except (Unsupported, ImportError, RuntimeError, AttributeError) as reason:
            return {"reason": f"{type(reason).__name__}: {reason}".splitlines()[0][:120]}


def main() -> None:
    """Obeys until there is nothing more to read."""
    try:
        worker = Worker(sys.argv[1], int(sys.argv[2]))
    except ImportError as reason:
        print(json.dumps({"reason": str(reason)}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(worker.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
