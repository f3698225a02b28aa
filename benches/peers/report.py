"""Paired ratios as a table and a plot."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from shapes import BUCKETS, Case

# A peer's time over ours: what is aimed at (geometric mean over models, the best peer of each cell).
TARGETS = {
    "f32": (1.45, 1.15, 1.10, 1.05, 1.02),
    "bf16": (1.80, 1.45, 1.20, 1.10, 1.02),
    "f16": (1.6, 5.0, 5.0, 3.0, 1.8),
    "int8": (1.2, 1.1, 1.0, 1.0, 1.0),
}
DTYPES = list(TARGETS)
Measured = list[tuple[Case, dict]]


def ratios(found: dict) -> dict[str, float]:
    """Each peer's time over ours: the median of the rounds' ratios."""
    ours = found.get("xqkv")
    if not isinstance(ours, list):
        return {}
    peers = {name: seconds for name, seconds in found.items() if name != "xqkv" and isinstance(seconds, list)}
    paired = {name: [a / b for a, b in zip(seconds, ours, strict=True)] for name, seconds in peers.items()}
    return {name: statistics.median(pairs) for name, pairs in paired.items()}


def mean(numbers: list[float]) -> float:
    """The geometric one."""
    return math.exp(sum(map(math.log, numbers)) / len(numbers))


def cells(measured: Measured, dtype: str, bucket: str) -> list[dict[str, float]]:
    """The ratios of a cell's cases."""
    return [ratios(found) for case, found in measured if (case.dtype, case.bucket) == (dtype, bucket)]


def of_peer(measured: Measured, dtype: str, bucket: str, peer: str) -> float | None:
    """A peer's geometric mean in a cell; of "best", that of the fastest peer in each case."""
    found = [cell for cell in cells(measured, dtype, bucket) if cell]
    chosen = [min(cell.values()) if peer == "best" else cell.get(peer) for cell in found]
    numbers = [number for number in chosen if number]
    return mean(numbers) if numbers else None


def row(name: str, numbers: list[float | None]) -> str:
    """A line of the table."""
    return f"| {name} | " + " | ".join("-" if number is None else f"{number:.2f}" for number in numbers) + " |"


def table(measured: Measured, dtype: str) -> list[str]:
    """One dtype's."""
    peers = sorted({name for case, found in measured if case.dtype == dtype for name in ratios(found)})
    lines = [f"| {dtype}: peer's time / ours | " + " | ".join(BUCKETS) + " |", "|---|" + "---:|" * len(BUCKETS)]
    lines += [row(peer, [of_peer(measured, dtype, bucket, peer) for bucket in BUCKETS]) for peer in peers]
    lines.append(row("**best peer**", [of_peer(measured, dtype, bucket, "best") for bucket in BUCKETS]))
    every = [[min(cell.values()) for cell in cells(measured, dtype, bucket) if cell] for bucket in BUCKETS]
    lines.append(row("worst single case", [min(numbers, default=None) for numbers in every]))
    return [*lines, row("aim", list(TARGETS[dtype])), ""]


def times(measured: Measured) -> list[str]:
    """Every case's medians in microseconds."""
    names = [name for name in measured[0][1] if isinstance(measured[0][1][name], list)]
    names = sorted({name for _, found in measured for name in found}, key=lambda name: (name != "xqkv", name))
    lines = ["| case (median us) | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for case, found in measured:
        seconds = [found.get(name) for name in names]
        shown = [f"{1e6 * statistics.median(one):.0f}" if isinstance(one, list) else "-" for one in seconds]
        lines.append(f"| {case.name} | " + " | ".join(shown) + " |")
    return [*lines, ""]


def reasons(measured: Measured) -> list[str]:
    """Who was not measured, and why."""
    told = {(name, case.dtype, why) for case, found in measured for name, why in found.items() if isinstance(why, str)}
    return [f"- {name}, {dtype}: {why}" for name, dtype, why in sorted(told)]


def write(output: Path, title: str, measured: Measured) -> None:
    """The table, and the plot where matplotlib is there."""
    dtypes = list(dict.fromkeys(case.dtype for case, _ in measured))
    tables = [line for dtype in dtypes for line in table(measured, dtype)]
    lines = [f"# Peers: {title}", "", *tables, *times(measured), "Not measured:", "", *reasons(measured)]
    output.with_suffix(".md").write_text("\n".join(lines) + "\n")
    plot(output.with_suffix(".svg"), title, measured, dtypes)


def plot(file: Path, title: str, measured: Measured, dtypes: list[str]) -> None:
    """A panel for each dtype: bars of each peer, a line at 1, a tick at each aim."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(len(dtypes), 1, figsize=(9, 3 * len(dtypes)), squeeze=False)
    for dtype, panel in zip(dtypes, panels[:, 0], strict=True):
        peers = sorted({name for case, found in measured if case.dtype == dtype for name in ratios(found)})
        for number, peer in enumerate(peers):
            numbers = [of_peer(measured, dtype, bucket, peer) or 0 for bucket in BUCKETS]
            places = [at + (number - (len(peers) - 1) / 2) * 0.8 / len(peers) for at in range(len(BUCKETS))]
            panel.bar(places, numbers, 0.8 / len(peers), label=peer)
        panel.scatter(range(len(BUCKETS)), TARGETS[dtype], marker="_", s=900, color="black", label="aim")
        panel.axhline(1, color="black", linewidth=0.8)
        panel.set(xticks=range(len(BUCKETS)), xticklabels=BUCKETS, ylabel=f"{dtype}: their time / ours")
        panel.legend(fontsize=7, ncols=3, markerscale=0.3)
    figure.suptitle(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)
