#!/usr/bin/env python3
"""Captures one planned call into a graph and replays it 1,000 times, each time on other inputs in the same memory; every
result is compared with whole-number arithmetic, which is exact. Needs no torch: it calls the driver itself."""

import ctypes
import os
import struct
import sys

from library import Context, Projection, abi, forward_of, spec_of, workspace_bytes

REPLAYS, INPUTS, ROWS, WIDTH, HEADS, HEAD_WIDTH = 1000, 10, 3, 32, 4, 8
PARTS = ("query", "key", "value")
COLUMNS = HEADS * HEAD_WIDTH
THREAD_LOCAL_CAPTURE, NON_BLOCKING = 1, 1


class Driver:
    """The CUDA driver, with device 0's primary context current on this thread."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(os.environ.get("XQKV_CUDA_LIBRARY", "libcuda.so.1"))
        self.call("cuInit", 0)
        context = ctypes.c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self.call("cuCtxPushCurrent_v2", context)

    def call(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name} answered {status}")

    def made(self, name: str, *arguments: object) -> ctypes.c_uint64:
        """What a function writes to its first argument."""
        value = ctypes.c_uint64()
        self.call(name, ctypes.byref(value), *arguments)
        return value

    def memory(self, contents: bytes) -> ctypes.c_uint64:
        """New memory with these bytes."""
        address = self.made("cuMemAlloc_v2", ctypes.c_size_t(max(len(contents), 1)))
        self.call("cuMemcpyHtoD_v2", address, contents, ctypes.c_size_t(len(contents)))
        # The copy may outlast its call, and streams that are non-blocking would not wait for it.
        self.call("cuCtxSynchronize")
        return address

    def close(self, memory: list[ctypes.c_uint64]) -> None:
        for address in memory:
            self.call("cuMemFree_v2", address)
        self.call("cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
        self.call("cuDevicePrimaryCtxRelease_v2", 0)


def bfloat16(integers: list[int]) -> bytes:
    """Small whole numbers, which bf16 has exactly, in its 16 bits."""
    return b"".join(struct.pack("<f", float(integer))[2:] for integer in integers)


def weight(part: int) -> list[int]:
    return [(at * 7 + at // WIDTH + part) % 9 - 4 for at in range(COLUMNS * WIDTH)]


def rows(generation: int) -> list[int]:
    return [(at * 5 + generation * 3) % 7 - 3 for at in range(ROWS * WIDTH)]


def product(given: list[int], matrix: list[int]) -> bytes:
    """rows · weightsᵀ as f32."""
    sums = [
        sum(given[row * WIDTH + k] * matrix[column * WIDTH + k] for k in range(WIDTH))
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]
    return struct.pack(f"<{len(sums)}f", *map(float, sums))


class Call:
    """A prefill of decoder and encoder rows, its memory, and its graph."""

    def __init__(self, driver: Driver, projection: Projection) -> None:
        self.driver, self.projection = driver, projection
        self.stream = driver.made("cuStreamCreate", NON_BLOCKING)
        self.inputs = [driver.memory(bfloat16(rows(0))) for _ in range(2)]
        self.outputs = [driver.memory(bytes(ROWS * COLUMNS * 4)) for _ in PARTS]
        sides = dict(zip(("decoder", "encoder"), ((at.value, abi.xqkv_dtype.BF16, ROWS) for at in self.inputs)))
        sides |= dict(zip(PARTS, ((at.value, abi.xqkv_dtype.F32, 0) for at in self.outputs)))
        forward = forward_of(self.stream.value, **sides)
        self.plan = projection.plan(forward)
        self.scratch = driver.memory(bytes(workspace_bytes(self.plan)))
        forward.plan = self.plan.handle
        forward.workspace, forward.workspace_bytes = self.scratch.value, workspace_bytes(self.plan)
        self.graph = self._captured(forward)

    def _captured(self, forward: abi.xqkv_forward) -> ctypes.c_uint64:
        self.driver.call("cuStreamBeginCapture_v2", self.stream, THREAD_LOCAL_CAPTURE)
        self.projection.forward(forward)
        graph = ctypes.c_uint64()
        self.driver.call("cuStreamEndCapture", self.stream, ctypes.byref(graph))
        executable = self.driver.made("cuGraphInstantiateWithFlags", graph, ctypes.c_uint64(0))
        self.driver.call("cuGraphDestroy", graph)
        return executable

    def replay(self, decoder: bytes, encoder: bytes) -> list[bytes]:
        """Results of one launch of the graph on these inputs."""
        for address, contents in zip(self.inputs, (decoder, encoder)):
            self.driver.call("cuMemcpyHtoDAsync_v2", address, contents, ctypes.c_size_t(len(contents)), self.stream)
        self.driver.call("cuGraphLaunch", self.graph, self.stream)
        self.driver.call("cuStreamSynchronize", self.stream)
        return [self._read(address) for address in self.outputs]

    def _read(self, address: ctypes.c_uint64) -> bytes:
        contents = ctypes.create_string_buffer(ROWS * COLUMNS * 4)
        self.driver.call("cuMemcpyDtoH_v2", contents, address, ctypes.c_size_t(len(contents)))
        return contents.raw

    def close(self) -> list[ctypes.c_uint64]:
        """Ends all but the memory, which it gives."""
        self.driver.call("cuGraphExecDestroy", self.graph)
        self.plan.close()
        self.driver.call("cuStreamDestroy_v2", self.stream)
        return [*self.inputs, *self.outputs, self.scratch]


def loaded(context: Context, matrices: list[ctypes.c_uint64]) -> Projection:
    """A projection of one layer with these weights."""
    dtype = abi.xqkv_dtype.BF16
    spec = spec_of(
        weight_dtype=dtype, layer_count=1, decoder_width=WIDTH, encoder_width=WIDTH,
        query_heads=HEADS, key_value_heads=HEADS, head_width=HEAD_WIDTH,
    )
    projection = Projection(context, spec)
    kind = abi.xqkv_kind.WEIGHT
    parts = (abi.xqkv_part[name.upper()] for name in PARTS)
    projection.load([(0, part, kind, dtype, at.value, COLUMNS, WIDTH) for part, at in zip(parts, matrices)])
    return projection


def mismatches(call: Call) -> int:
    """How many of all replays gave anything but the exact results."""
    given = [rows(generation) for generation in range(INPUTS)]
    expected = [[product(one, weight(part)) for part in range(len(PARTS))] for one in given]
    packed, wrong = [bfloat16(one) for one in given], 0
    for replay in range(REPLAYS):
        decoder, encoder = replay % INPUTS, (replay // INPUTS) % INPUTS
        results = call.replay(packed[decoder], packed[encoder])
        wrong += results != [expected[decoder][0], expected[encoder][1], expected[encoder][2]]
    return wrong


def main() -> int:
    driver = Driver()
    matrices = [driver.memory(bfloat16(weight(part))) for part in range(len(PARTS))]
    with Context() as context, loaded(context, matrices) as projection:
        call = Call(driver, projection)
        wrong = mismatches(call)
        memory = call.close()
    driver.close([*matrices, *memory])
    print(f"{REPLAYS} replays, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
