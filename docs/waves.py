#!/usr/bin/env python3
"""A model of waves: what some calls should cost on an H100 or H200, from shapes and data sheets.

Writes the tables of docs/waves.md; with --check it fails where they are stale. How many calls of
cublasLtMatmul there are is read from docs/matmuls.md, which the planner's tests hold to the code.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
DOCUMENT = FOLDER / "waves.md"
sys.path.insert(0, str(FOLDER.parent / "gpu"))

import shapes  # noqa: E402  the benchmark's, found beside it
from shapes import DECODE_ROWS, ELEMENT_BYTES  # noqa: E402

# NVIDIA's data sheets of the SXM5 modules, dense bf16.
MULTIPROCESSORS = 132
FLOPS_PER_SECOND = 989e12
BYTES_PER_SECOND = {"H100": 3.35e12, "H200": 4.8e12}
L2_BYTES = 50e6
# Assumptions, measured nowhere: from one matmul's end to the next one's begin on a stream.
LAUNCH_SECONDS = 2e-6
# Outputs and rows of a tile.
TILES = ((128, 128), (128, 256))


@dataclass(frozen=True)
class Model:
    name: str
    ranks: tuple
    width: int
    query_heads: int
    key_value_heads: int
    head_width: int
    layers: int
    encoder_rows: int
    bias: str


def model(name, shape, ranks, encoder_rows):
    """A model of the benchmark's as these tables call it."""
    sizes = (shape.width, shape.query_heads, shape.key_value_heads, shape.head_width, shape.layers)
    return Model(name, ranks, *sizes, encoder_rows, "V" if shape.has_bias else "none")


MODELS = (
    model("whisper-large-v3", shapes.WHISPER, (1, 4), shapes.WHISPER.encoder_rows[0]),
    model("mllama-11B", shapes.MLLAMA, (1, 8), shapes.MLLAMA.encoder_rows[1]),
    model("T5-XXL", shapes.T5, (1, 8), shapes.T5.encoder_rows[0]),
)


@dataclass(frozen=True)
class Call:
    """One forward of one side on one rank: `layers` products rows x inputs x outputs."""

    layers: int
    rows: int
    inputs: int
    outputs: int

    def flops(self):
        return 2 * self.layers * self.rows * self.inputs * self.outputs

    def bytes(self):
        """Weights and results once; rows once if the L2 keeps them, else for each layer."""
        rows = self.rows * self.inputs * ELEMENT_BYTES
        reads = 1 if rows <= L2_BYTES else self.layers
        per_layer = (self.inputs + self.rows) * self.outputs * ELEMENT_BYTES
        return reads * rows + self.layers * per_layer

    def tiles(self, tile):
        outputs, rows = tile
        return self.layers * math.ceil(self.outputs / outputs) * math.ceil(self.rows / rows)

    def waves(self, tile):
        return math.ceil(self.tiles(tile) / MULTIPROCESSORS)

    def tensor_seconds(self):
        """Whole waves of the tile that suits better, each multiprocessor at its peak."""
        def of(tile):
            work = 2 * tile[0] * tile[1] * self.inputs
            return self.waves(tile) * work / (FLOPS_PER_SECOND / MULTIPROCESSORS)

        return min(of(tile) for tile in TILES)

    def memory_seconds(self, card):
        return self.bytes() / BYTES_PER_SECOND[card]

    def bound(self, card):
        """What takes longer at the peaks, and how long."""
        memory, tensor = self.memory_seconds(card), self.flops() / FLOPS_PER_SECOND
        return max((memory, "bandwidth"), (tensor, "tensor cores"))

    def seconds(self, card):
        return max(self.memory_seconds(card), self.tensor_seconds())


def launches(views, bias, layers):
    """The committed table's calls; 32 layers there stand for any number above 1."""
    for line in (FOLDER / "matmuls.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        key = [f"`{views}`", "", "one", bias, "1" if layers == 1 else "32", "ours"]
        if cells[:6] == key:
            return int(cells[6])
    raise SystemExit(f"docs/matmuls.md has no row for {views}, bias {bias}, {layers} layers")


def fill(model, rank_count, layers):
    heads = model.key_value_heads // rank_count
    return Call(layers, model.encoder_rows, model.width, 2 * heads * model.head_width)


def decode(model, rank_count, rows):
    heads = model.query_heads // rank_count
    return Call(1, rows, model.width, heads * model.head_width)


def cells():
    return [(model, ranks) for model in MODELS for ranks in model.ranks]


def row(*values):
    return "| " + " | ".join(str(value) for value in values) + " |"


def header(*names):
    return [row(*names), "|" + "---|" * len(names)]


def microseconds(seconds):
    return f"{seconds * 1e6:.1f}"


def call_row(model, ranks, heads, name, call, count):
    tiles = [value for tile in TILES for value in (call.tiles(tile), call.waves(tile))]
    bounds = [call.bound(card) for card in BYTES_PER_SECOND]
    times = [value for seconds, name in bounds for value in (name, microseconds(seconds))]
    work = f"{call.bytes() / 1e6:.2f}", f"{call.flops() / 1e9:.3f}"
    return row(model.name, ranks, name, call.layers, heads, call.rows, call.outputs, count, *work,
               *tiles, microseconds(call.tensor_seconds()), *times)


CALL_HEADER = ("Model", "Ranks", "Call", "Layers", "Heads", "Rows", "Outputs", "Launches", "MB",
               "GFLOP", "Tiles 128x128", "Waves", "Tiles 128x256", "Waves", "Waves, us",
               "H100 bound", "H100 us", "H200 bound", "H200 us")


def fill_table():
    lines = header(*CALL_HEADER)
    for model, ranks in cells():
        heads = model.key_value_heads // ranks
        for layers, views in ((1, "[T, 2, H, d]"), (model.layers, "[L, T, 2, H, d]")):
            call = fill(model, ranks, layers)
            count = launches(views, model.bias, layers)
            lines.append(call_row(model, ranks, heads, "K and V", call, count))
    return lines


def decode_table():
    lines = header(*CALL_HEADER)
    for model, ranks in cells():
        heads = model.query_heads // ranks
        bias = "none" if model.bias == "none" else "all"
        for rows in DECODE_ROWS:
            call = decode(model, ranks, rows)
            count = launches("Q [T, H, d]", bias, 1)
            lines.append(call_row(model, ranks, heads, "Q", call, count))
    return lines


def gain_table():
    lines = header("Model", "Ranks", "Layers", "Waves 128x128, loop", "One call",
                   "Waves 128x256, loop", "One call", "H100 us, loop", "One call", "Gain",
                   "H200 us, loop", "One call", "Gain")
    for model, ranks in cells():
        one, every = fill(model, ranks, 1), fill(model, ranks, model.layers)
        waves = [value for tile in TILES
                 for value in (model.layers * one.waves(tile), every.waves(tile))]
        times = [value for card in BYTES_PER_SECOND for value in gain(model, one, every, card)]
        lines.append(row(model.name, ranks, model.layers, *waves, *times))
    return lines


def gain(model, one, every, card):
    """The loop may find the rows in the L2 as well, so it is not charged for them again."""
    spared = (model.layers * one.bytes() - every.bytes()) / model.layers
    memory = (one.bytes() - spared) / BYTES_PER_SECOND[card]
    loop = model.layers * (max(memory, one.tensor_seconds()) + LAUNCH_SECONDS)
    joined = every.seconds(card) + LAUNCH_SECONDS
    return microseconds(loop), microseconds(joined), f"{loop / joined:.2f}x"


TABLES = {"fill": fill_table, "decode": decode_table, "gain": gain_table}


def written(text):
    """The document with each table between its two marks made anew."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        after = rest.split(end)[1]
        text = before + begin + "\n".join(table()) + "\n" + end + after
    return text


def main():
    text = DOCUMENT.read_text()
    fresh = written(text)
    if "--check" not in sys.argv[1:]:
        DOCUMENT.write_text(fresh)
    elif fresh != text:
        raise SystemExit("docs/waves.md is stale; run python3 docs/waves.py")


if __name__ == "__main__":
    main()
