"""All cross-attention layers of a model in one process: by xqkv, or by torch as vLLM did it and as it would do it."""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from candidates import Torch, Xqkv, from_bits, to_bits
from shapes import MODELS, Model
from worker import exact_in_bf16, over_bound


@dataclass(frozen=True)
class Step:
    """What a model does at once: Q of decoder rows in each layer, and K and V where the encoder's rows are new."""

    model: Model
    dtype: str
    decoder_rows: int
    is_prefill: bool

    @classmethod
    def of(cls, order: dict) -> Step:
        """As the other process says it."""
        model = next(model for model in MODELS if model.name == order["model"])
        return cls(model, order["dtype"], order["rows"], order["prefill"])


@dataclass(frozen=True)
class Numbers:
    """The same for all layers, in memory of its own for each."""

    weight: np.ndarray
    bias: np.ndarray
    decoder: np.ndarray
    encoder: np.ndarray

    @classmethod
    def of(cls, step: Step) -> Numbers:
        """Q's rows of the weight, then K's and V's, as checkpoints fuse them."""
        random, width = np.random.default_rng(7), step.model.width
        columns = step.model.query_columns + 2 * step.model.key_columns
        sizes = ((columns, width), (columns,), (step.decoder_rows, width), (step.model.encoder_rows, width))
        weight, bias, decoder, encoder = (exact_in_bf16(random, size, 1) for size in sizes)
        return cls(weight / 16, bias, decoder, encoder)

    def parts(self, step: Step) -> list[tuple[str, np.ndarray, np.ndarray]]:
        """Each part's weight and bias."""
        ends = (step.model.query_columns, step.model.query_columns + step.model.key_columns)
        return list(zip(("QUERY", "KEY", "VALUE"), np.split(self.weight, ends), np.split(self.bias, ends), strict=True))


class Ours(Xqkv):
    """A call for each layer's Q, and one for all layers' K and V, since they share the encoder's rows."""

    def prepare_step(self, step: Step, numbers: Numbers) -> None:
        """Packs all layers and makes both calls."""
        self.step, model = step, step.model
        self.layers(step, numbers)
        self.kept = [to_bits(rows, step.dtype) for rows in (numbers.decoder, numbers.encoder)]
        kind = self.kept[0].dtype
        self.query = np.zeros((step.decoder_rows, model.query_columns), kind)
        shape = (model.layers, model.encoder_rows, model.key_columns) if step.is_prefill else (0,)
        self.key, self.value = np.zeros(shape, kind), np.zeros(shape, kind)
        dtype = self.dtype_of(step.dtype)
        self.of_layer = self.call_of("decoder", self.kept[0], {"query": self.query}, dtype)
        self.of_all = self.call_of("encoder", self.kept[1], {"key": self.key, "value": self.value}, dtype)
        self.of_all.layer_count = model.layers

    def layers(self, step: Step, numbers: Numbers) -> None:
        """A projection with every layer of the model."""
        model, of = step.model, self.xqkv
        spec = of.Spec(
            layer_count=model.layers, decoder_width=model.width, encoder_width=model.width,
            query_heads=model.query_columns // 64, key_value_heads=model.key_columns // 64, head_width=64,
            weight_dtype=self.dtype_of(step.dtype), query_bias=True, key_bias=True, value_bias=True,
        )  # fmt: skip
        self.projection = of.Projection(self.context, spec)
        with self.projection.update() as update:
            for layer in range(model.layers):
                for part, weight, bias in numbers.parts(step):
                    update.put(layer, getattr(of.Part, part), weight, convert=True)
                    update.put(layer, getattr(of.Part, part), bias, kind=of.Kind.BIAS)

    def run_step(self, way: str) -> None:
        """There is one way."""
        del way
        if self.step.is_prefill:
            self.forward(self.of_all)
        for layer in range(self.step.model.layers):
            self.of_layer.layer = layer
            self.forward(self.of_layer)

    def parts(self) -> list[np.ndarray]:
        """The last layer's Q, and its K and V."""
        wrote = [self.query, self.key[-1], self.value[-1]] if self.step.is_prefill else [self.query]
        return [from_bits(part, self.step.dtype) for part in wrote]


class TorchSteps(Torch):
    """The workaround of vLLM 7397, the fused product of decoder and then of encoder rows; and only what is needed."""

    def prepare_step(self, step: Step, numbers: Numbers) -> None:
        """Makes the tensors; both ways use the same ones."""
        torch = self.torch
        self.step = step
        dtype = self.dtype_of(step.dtype)
        made = [torch.from_numpy(array).to(dtype) for array in vars(numbers).values()]
        weight, self.bias, self.decoder, self.encoder = made
        self.weights = [weight.clone() for _ in range(step.model.layers)]

    def run_step(self, way: str) -> None:
        """Layer by layer; of the last one the outputs stay."""
        layer = self.workaround if way == "workaround" else self.split
        outputs = [layer(weight) for weight in self.weights]
        self.outputs = outputs[-1]

    def workaround(self, weight: Any) -> list[Any]:
        """Q of one product, K and V of the other; the rest is thrown away."""
        linear, ends = self.torch.nn.functional.linear, self.step.model.query_columns
        query = linear(self.decoder, weight, self.bias)[:, :ends]
        if not self.step.is_prefill:
            return [query]
        return [query, linear(self.encoder, weight, self.bias)[:, ends:]]

    def split(self, weight: Any) -> list[Any]:
        """Each product with the rows of the weight that it needs."""
        linear, ends = self.torch.nn.functional.linear, self.step.model.query_columns
        query = linear(self.decoder, weight[:ends], self.bias[:ends])
        if not self.step.is_prefill:
            return [query]
        return [query, linear(self.encoder, weight[ends:], self.bias[ends:])]

    def parts(self) -> list[np.ndarray]:
        """The last layer's Q, and its K and V."""
        outputs = [output.float().numpy() for output in self.outputs]
        return outputs[:1] + [half for both in outputs[1:] for half in np.split(both, 2, axis=1)]


def error(step: Step, numbers: Numbers, found: list[np.ndarray]) -> float:
    """The worst part's, over its bound; it must have as many parts as the step asks for."""
    if len(found) != (3 if step.is_prefill else 1):
        return float("inf")
    errors = []
    for result, (part, weight, bias) in zip(found, numbers.parts(step), strict=False):
        rows = numbers.decoder if part == "QUERY" else numbers.encoder
        errors.append(over_bound(step.dtype, result, weight, bias, rows))
    # Not max(): it passes over what is not a number.
    return float(np.max(errors))


def sample(candidate: Any, order: dict) -> float:
    """Median seconds of so many steps."""
    times = []
    for _ in range(order["count"]):
        begun = time.perf_counter()
        candidate.run_step(order["way"])
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def obey(candidate: Any, order: dict) -> dict:
    """Makes a step ready and checks each way of doing it, or takes a sample of one."""
    if order["do"] == "sample":
        return {"seconds": sample(candidate, order)}
    step = Step.of(order)
    numbers = Numbers.of(step)
    candidate.prepare_step(step, numbers)
    errors = {}
    for way in order["ways"]:
        candidate.run_step(way)
        errors[way] = error(step, numbers, candidate.parts())
    return {"errors": errors}


def main() -> None:
    """Obeys until there is nothing more to read."""
    candidate = {"xqkv": Ours, "torch": TorchSteps}[sys.argv[1]](int(sys.argv[2]))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(obey(candidate, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
