"""Swaps the cross-attention projections of transformers' own mllama and Whisper for xqkv's torch operator, at two
ranks, and prints what that changes: nothing of the logits, and no multiply-add that is thrown away.

    python examples/python/swap_transformers.py
    torchrun --nproc-per-node 2 examples/python/swap_transformers.py

Gloo and host memory, or NCCL where there is a GPU for each rank. Exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
from dataclasses import dataclass, field

import models
import torch
import torch.distributed as dist
import torch.multiprocessing
import xqkv
from cross_attention import FusedTwice, Operator, load, places, spec_of, swap
from xqkv import torch_comm, torch_op

# Ranks sum the output projection in another order than one rank does: a few roundings of f32, relative to the largest.
MARGIN = 1e-5


@dataclass
class Line:
    """One call of a model on this rank."""

    # Rows of the decoder and of the encoder, which are 0 once their keys and values are cached.
    rows: tuple[int, int]
    # Multiply-adds that the shapes make necessary on this rank and uncut, and those that were executed.
    necessary: int
    uncut: int
    executed: int
    error: float
    # What the workaround made use of, by the rows that its layer ran on.
    fused: dict[str, float] = field(default_factory=dict)


def necessary(spec, heads, key_value_heads, decoder_rows, encoder_rows):
    """Multiply-adds of all layers, from shapes alone."""
    query = decoder_rows * heads * spec.head_width * spec.decoder_width
    key_value = encoder_rows * 2 * key_value_heads * spec.head_width * spec.encoder_width
    return spec.layer_count * (query + key_value)


def relative(logits, expected):
    return float((logits - expected).abs().max() / expected.abs().max())


def measure(case, device, compiler):
    """A line for each call of the case, and how often torch.compile had to leave the graph."""
    layers = [theirs for _, _, theirs in places(case.model)]
    spec = spec_of(layers)
    # The ranks' communicator only makes sure that all have the same spec and weights: calls whose results stay sharded
    # by head transfer nothing.
    with (
        context_of(device) as context,
        torch_comm.of_group(context) as comm,
        xqkv.Projection(context, spec, comm=comm) as projection,
    ):
        load(projection, layers)
        number = torch_op.register(projection)
        operators = [Operator(number, layer) for layer in range(spec.layer_count)]
        ours = swap(copy.deepcopy(case.model), operators, projection.shard)
        lines, breaks = run_operator(case, ours, number, projection, compiler)
        run_fused(case, projection, lines)
        torch_op.unregister(number)
    return lines, breaks


def context_of(device):
    if device.type == "cuda":
        return xqkv.Context(backend=xqkv.Backend.CUDA, device=device.index)
    return xqkv.Context(thread_count=1)


def run_operator(case, ours, number, projection, compiler):
    """The swapped model, compiled, beside the model as it was."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    call = torch.compile(ours, fullgraph=True, backend=compiler)
    spec, shard, lines, before = projection.spec, projection.shard, [], 0
    for logits, expected in zip(case.logits(call), case.logits(case.model)):
        executed, before = torch_op.multiply_adds(number) - before, torch_op.multiply_adds(number)
        rows = logits.shape[0] * logits.shape[1], 0 if lines else case.encoder.shape[0] * case.encoder.shape[1]
        mine = necessary(spec, shard.query_head_count, shard.key_value_head_count, *rows)
        uncut = necessary(spec, spec.query_heads, spec.key_value_heads, *rows)
        lines.append(Line(rows, mine, uncut, executed, relative(logits, expected)))
    return lines, sum(torch._dynamo.utils.counters["graph_break"].values())


def run_fused(case, projection, lines):
    """The workaround, whose layers are watched: how much of what they compute is made use of."""
    spec, shard = projection.spec, projection.shard
    fused = [FusedTwice(theirs, shard) for _, _, theirs in places(case.model)]
    executed = {"decoder": 0, "encoder": 0}

    def watch(linear, given, result):
        side = "encoder" if given[0].shape == case.encoder.shape else "decoder"
        executed[side] += result.numel() * linear.in_features

    for layer in fused:
        layer.fused.register_forward_hook(watch)
    workaround = swap(copy.deepcopy(case.model), fused, shard)
    for line, logits, expected in zip(lines, case.logits(workaround), case.logits(case.model)):
        line.error = max(line.error, relative(logits, expected))
        sides = {"decoder": (line.rows[0], 0), "encoder": (0, line.rows[1])}
        for side, rows in sides.items():
            mine = necessary(spec, shard.query_head_count, shard.key_value_head_count, *rows)
            if executed[side] > 0:
                line.fused[side] = mine / executed[side]
            executed[side] = 0


def report(name, ranks, breaks):
    """Prints the lines of all ranks; gives whether all is as it should be."""
    is_right = breaks == 0
    for call, lines in enumerate(zip(*ranks)):
        rank_ratio = min(line.necessary / line.executed for line in lines)
        group_ratio = lines[0].uncut / sum(line.executed for line in lines)
        error = max(line.error for line in lines)
        fused = [f"{lines[0].fused[side]:.2f}" if side in lines[0].fused else "-" for side in ("decoder", "encoder")]
        decoder_rows, encoder_rows = lines[0].rows
        what = "prefill" if call == 0 else f"step {call}"
        print(
            f"{name:8} {what:8} {decoder_rows:4} {encoder_rows:4}   {rank_ratio:6.3f} {group_ratio:6.3f}"
            f"  {fused[0]:>9} {fused[1]:>9}   {error:8.1e} {breaks:6}"
        )
        is_right = is_right and rank_ratio == group_ratio == 1.0 and error <= MARGIN
    return is_right


def run(rank, rank_count, compiler):
    """All cases on this rank; gives whether all is as it should be."""
    on_devices = torch.cuda.is_available() and torch.cuda.device_count() >= rank_count
    device = torch.device("cuda", rank) if on_devices else torch.device("cpu")
    is_right = True
    if rank == 0:
        print(f"{rank_count} ranks on {device.type}; multiply-adds that are made use of, of those that were executed:")
        print("                          rows       xqkv            fused, run on    logits   graph")
        print("model    call      dec  enc     rank  group    decoder   encoder   differ by breaks")
    with torch.no_grad():
        for make in (models.mllama, models.whisper):
            case = make(device)
            lines, breaks = measure(case, device, compiler)
            ranks = [None] * rank_count
            dist.all_gather_object(ranks, lines)
            if rank == 0:
                is_right = report(case.name, ranks, breaks) and is_right
    return is_right


def main(rank, rank_count, compiler, store=None):
    torch.set_num_threads(1)
    on_devices = torch.cuda.is_available() and torch.cuda.device_count() >= rank_count
    if on_devices:
        torch.cuda.set_device(rank)
    place = {} if store is None else {"init_method": f"file://{store}", "rank": rank, "world_size": rank_count}
    dist.init_process_group("nccl" if on_devices else "gloo", **place)
    is_right = run(rank, rank_count, compiler)
    dist.destroy_process_group()
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--ranks", type=int, default=2, help="processes to start, where torchrun has not")
    parser.add_argument("--compiler", default="aot_eager", help="torch.compile's backend, such as inductor")
    given = parser.parse_args()
    if "RANK" in os.environ:
        main(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), given.compiler)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (given.ranks, given.compiler, f"{folder}/store")
        torch.multiprocessing.spawn(main, arguments, nprocs=given.ranks)
