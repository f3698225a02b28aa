"""The contenders on the GPU: xqkv and torch on the same weights and rows, each as a CUDA graph of a round of calls.

    xqkv            one planned call
    separate        F.linear for Q and for K and V together, as vLLM's QKVCrossParallelLinear did
    workaround      one fused layer applied to each side, as in vLLM's issue 7397
    xqkv_loop       layer by layer, where xqkv is one call of all layers
"""

import gc
import statistics
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from library import Context, Handle, Projection, abi, forward_of, spec_of, workspace_bytes
from shapes import Cell

DTYPE, WIRE = torch.bfloat16, abi.xqkv_dtype.BF16
SCRUB_BYTES = 1 << 30


def device() -> dict:
    """What the figures are of."""
    found = torch.cuda.get_device_properties(0)
    capability = f"{found.major}.{found.minor}"
    return {"name": found.name, "capability": capability, "cuda": torch.version.cuda, "cache_bytes": cache_bytes()}


def cache_bytes() -> int:
    return int(getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0)) or 50_000_000


def rates() -> dict:
    """The best matrix product and the best copy that this card does now; copies count what they read and write."""
    stream, side = torch.cuda.Stream(), 8192
    left, right = (torch.randn(side, side, device="cuda", dtype=DTYPE) for _ in range(2))
    source, target = (torch.empty(SCRUB_BYTES, device="cuda", dtype=torch.uint8) for _ in range(2))
    product = Replay(stream, lambda: torch.mm(left, right.t()))
    copy = Replay(stream, lambda: target.copy_(source))
    return {
        "multiply_adds_per_second": side**3 / statistics.median(product.seconds() for _ in range(20)),
        "copy_bytes_per_second": 2 * SCRUB_BYTES / statistics.median(copy.seconds() for _ in range(20)),
    }


class Replay:
    """A captured round of calls. `kept` is what must live as long as the graph."""

    scrub: torch.Tensor | None = None

    def __init__(self, stream: torch.cuda.Stream, round_of_calls: Callable[[], object], *kept: object) -> None:
        self.stream, self.kept = stream, kept
        self.begin, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if Replay.scrub is None:
            Replay.scrub = torch.empty(SCRUB_BYTES, device="cuda", dtype=torch.uint8)
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            round_of_calls()
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            round_of_calls()

    def seconds(self) -> float:
        """Of one replay, from a cold cache. The scrub also gives the host time to queue the graph behind it."""
        with torch.cuda.stream(self.stream):
            Replay.scrub.zero_()
            self.begin.record()
            self.graph.replay()
            self.end.record()
        self.end.synchronize()
        return self.begin.elapsed_time(self.end) / 1e3


class Weights:
    """So many sets of one rank's weights, for torch and, copied, for xqkv."""

    def __init__(self, cell: Cell, sets: int) -> None:
        self.cell, self.sets = cell, sets
        width, columns = cell.model.width, cell.all_columns
        self.fused = torch.randn(sets, columns, width, device="cuda", dtype=DTYPE) / width**0.5
        self.bias = torch.randn(sets, columns, device="cuda", dtype=DTYPE) if cell.model.has_bias else None
        if self.bias is not None:
            # Whisper's K has none; engines that fuse the layer keep zeros.
            self.bias[:, cell.query_columns : cell.query_columns + cell.key_columns] = 0
        torch.cuda.synchronize()
        self.context = Context()
        self.projection = Projection(self.context, self._spec(), cell.ranks)
        self.projection.load(list(self._tensors()))

    def _spec(self) -> abi.xqkv_spec:
        model, has_bias = self.cell.model, int(self.cell.model.has_bias)
        return spec_of(
            weight_dtype=WIRE, layer_count=self.sets, decoder_width=model.width, encoder_width=model.width,
            query_heads=model.query_heads, key_value_heads=model.key_value_heads, head_width=model.head_width,
            query_bias=has_bias, value_bias=has_bias,
        )

    def _tensors(self) -> Iterator[tuple]:
        for layer in range(self.sets):
            for part, (first, count) in self._ranges().items():
                kind, rows = abi.xqkv_kind, self.fused[layer, first:]
                yield layer, part, kind.WEIGHT, WIRE, rows.data_ptr(), count, self.cell.model.width
                if self.bias is not None and part != abi.xqkv_part.KEY:
                    yield layer, part, kind.BIAS, WIRE, self.bias[layer, first:].data_ptr(), count, 1

    def _ranges(self) -> dict:
        query, key = self.cell.query_columns, self.cell.key_columns
        part = abi.xqkv_part
        return {part.QUERY: (0, query), part.KEY: (query, key), part.VALUE: (query + key, key)}

    def linear(self, rows: torch.Tensor, layer: int, first: int, last: int) -> torch.Tensor:
        """torch's product with some columns of one set."""
        bias = None if self.bias is None else self.bias[layer, first:last]
        return F.linear(rows, self.fused[layer, first:last], bias)

    def close(self) -> None:
        self.projection.close()
        self.context.close()


class Workbench:
    """The cases of one cell that go around the same number of sets. Memory is taken at the first of them."""

    def __init__(self, cell: Cell, fill: bool, decode: bool) -> None:
        self.cell, self.fill = cell, fill
        columns = cell.query_columns if decode else cell.all_columns
        self.sets = cell.model.layers if fill else cell.cold_sets(columns, cache_bytes())
        self.stream = torch.cuda.Stream()
        self._weights: Weights | None = None

    @classmethod
    def each(cls, cell: Cell, cases: list[dict]) -> Iterator[tuple["Workbench", dict]]:
        """Cases with the workbench of theirs; those of a kind follow each other."""
        kinds = list(dict.fromkeys((case["fill"], case["encoder_rows"] == 0) for case in cases))
        for fill, decode in kinds:
            workbench = cls(cell, fill, decode)
            for case in cases:
                if (case["fill"], case["encoder_rows"] == 0) == (fill, decode):
                    yield workbench, case
            workbench.close()

    @property
    def weights(self) -> Weights:
        if self._weights is None:
            self._weights = Weights(self.cell, self.sets)
        return self._weights

    def contenders(self, decoder_rows: int, encoder_rows: int, fill: bool) -> tuple[dict[str, Replay], int]:
        """Graphs of all, and how many layers one is of."""
        width = self.cell.model.width
        decoder, encoder = (torch.randn(rows, width, device="cuda", dtype=DTYPE) for rows in (decoder_rows, encoder_rows))
        one = Call(self, decoder, encoder, self.sets if fill else 1)
        one.check()
        made = {"xqkv": one.replay()}
        if fill:
            made["xqkv_loop"] = Call(self, decoder, encoder, 1).replay()
        for name in ("separate", "workaround"):
            made[name] = Replay(self.stream, lambda name=name: getattr(self, name)(decoder, encoder))
        return made, self.sets

    def separate(self, decoder: torch.Tensor, encoder: torch.Tensor) -> None:
        query, last = self.cell.query_columns, self.cell.all_columns
        for layer in range(self.sets):
            if len(decoder):
                self.weights.linear(decoder, layer, 0, query)
            if len(encoder):
                self.weights.linear(encoder, layer, query, last)

    def workaround(self, decoder: torch.Tensor, encoder: torch.Tensor) -> None:
        for layer in range(self.sets):
            for rows in (decoder, encoder):
                if len(rows):
                    self.weights.linear(rows, layer, 0, self.cell.all_columns)

    def close(self) -> None:
        if self._weights is not None:
            self._weights.close()
        self._weights = None
        gc.collect()
        torch.cuda.empty_cache()


class Call:
    """xqkv's planned call of so many layers at once, with its outputs and scratch memory."""

    def __init__(self, workbench: Workbench, decoder: torch.Tensor, encoder: torch.Tensor, layers: int) -> None:
        self.workbench, self.layers, self.inputs = workbench, layers, (decoder, encoder)
        cell = workbench.cell
        self.query = torch.empty(len(decoder), cell.query_columns, device="cuda", dtype=DTYPE)
        self.key, self.value = (
            torch.empty(layers, len(encoder), cell.key_columns, device="cuda", dtype=DTYPE) for _ in range(2)
        )
        self.forward = forward_of(workbench.stream.cuda_stream, **self._sides())
        self.forward.layer_count = layers
        self.plan: Handle = workbench.weights.projection.plan(self.forward)
        self.scratch = torch.empty(workspace_bytes(self.plan), device="cuda", dtype=torch.uint8)
        self.forward.plan = self.plan.handle
        self.forward.workspace, self.forward.workspace_bytes = self.scratch.data_ptr(), self.scratch.numel()

    def _sides(self) -> dict[str, tuple[int, int, int]]:
        decoder, encoder = self.inputs
        given = {"decoder": decoder, "query": self.query} if len(decoder) else {}
        given |= {"encoder": encoder, "key": self.key, "value": self.value} if len(encoder) else {}
        return {name: (tensor.data_ptr(), WIRE, len(tensor)) for name, tensor in given.items()}

    def run(self) -> None:
        """A round of all sets."""
        for layer in range(0, self.workbench.sets, self.layers):
            self.forward.layer = layer
            self.workbench.weights.projection.forward(self.forward)

    def check(self) -> None:
        """The last calls' results are torch's, up to the rounding of bf16."""
        torch.cuda.synchronize()
        self.run()
        torch.cuda.synchronize()
        weights, cell = self.workbench.weights, self.workbench.cell
        (decoder, encoder), last = self.inputs, self.workbench.sets - 1
        query, key = cell.query_columns, cell.key_columns
        near = {"rtol": 0.02, "atol": 0.02}
        torch.testing.assert_close(self.query, weights.linear(decoder, last, 0, query), **near)
        torch.testing.assert_close(self.key[-1], weights.linear(encoder, last, query, query + key), **near)
        torch.testing.assert_close(self.value[-1], weights.linear(encoder, last, query + key, query + 2 * key), **near)

    def replay(self) -> Replay:
        return Replay(self.workbench.stream, self.run, self)
