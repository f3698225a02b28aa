"""Medians with bootstrap intervals, and an order of samples in which no contender is always first."""

import random
import statistics

RESAMPLES = 1000


def interleaved(names: list[str], rounds: int, seed: int = 1) -> list[str]:
    """Every name once a round, each round in an order of its own, so that a drift of the clock meets all alike."""
    source = random.Random(seed)
    return [name for _ in range(rounds) for name in source.sample(names, len(names))]


def interval(values: list[float]) -> tuple[float, float]:
    """The middle 95% of values."""
    ordered = sorted(values)
    edge = round(len(ordered) * 0.025)
    return ordered[edge], ordered[len(ordered) - 1 - edge]


def summary(samples: list[float], seed: int = 1) -> dict:
    """The median with its 95% interval by the bootstrap."""
    source = random.Random(seed)
    medians = [statistics.median(source.choices(samples, k=len(samples))) for _ in range(RESAMPLES)]
    low, high = interval(medians)
    return {"median": statistics.median(samples), "low": low, "high": high, "samples": len(samples)}


def speedup(ours: list[float], theirs: list[float], seed: int = 1) -> dict:
    """How often ours fits into theirs; both are resampled by rounds, in which they ran side by side."""
    source, rounds = random.Random(seed), range(len(ours))
    ratios = []
    for _ in range(RESAMPLES):
        taken = source.choices(rounds, k=len(ours))
        ratios.append(statistics.median(theirs[at] for at in taken) / statistics.median(ours[at] for at in taken))
    low, high = interval(ratios)
    return {"median": statistics.median(theirs) / statistics.median(ours), "low": low, "high": high}
