#!/usr/bin/env python3
"""Rules of the simulated GPU, asked as questions. `rules.py` answers them with the libraries that XQKV_CUDA_LIBRARY and
XQKV_CUBLASLT_LIBRARY name; `rules.py --compare` asks those and the simulator, and prints both answers side by side.

Only questions that leave a real driver unharmed: refused handles that never existed and freed memory are left out, since
the real one may crash on them.
"""

import argparse
import ctypes
import json
import os
import subprocess
import sys
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path

NULL = c_void_p()


class Asked:
    """The libraries, with a context on device 0, and one piece of memory."""

    def __init__(self) -> None:
        self.driver = ctypes.CDLL(os.environ.get("XQKV_CUDA_LIBRARY", "libcuda.so.1"))
        self.cublaslt = ctypes.CDLL(os.environ.get("XQKV_CUBLASLT_LIBRARY", "libcublasLt.so.13"))
        self.context, self.handle = c_void_p(), c_void_p()
        self.before_init = self("cuCtxGetCurrent", byref(c_void_p()))
        for status in (self("cuInit", 0), self("cuDevicePrimaryCtxRetain", byref(self.context), 0)):
            assert status == 0, f"no device: {status}"

    def __call__(self, name: str, *arguments) -> int:
        library = self.cublaslt if name.startswith("cublas") else self.driver
        return int(getattr(library, name)(*arguments))

    def allocated(self, count: int) -> tuple[int, c_uint64]:
        """The status of an allocation, and what it gave."""
        address = c_uint64()
        return self("cuMemAlloc_v2", byref(address), c_size_t(count)), address

    def attribute(self, number: int, address: int) -> list[int]:
        """The status and the value of an attribute of an address."""
        value = c_int(-7)
        status = self("cuPointerGetAttribute", byref(value), number, c_uint64(address))
        return [status, value.value if status == 0 else 0]


def answers(asked: Asked) -> dict[str, object]:
    """Each question with what was answered: statuses, or statuses and values."""
    found: dict[str, object] = {"cuCtxGetCurrent before cuInit": asked.before_init}
    stream, event, other = c_void_p(), c_void_p(), c_void_p()
    found["cuMemAlloc without a context"] = asked.allocated(16)[0]
    found["cuStreamCreate without a context"] = asked("cuStreamCreate", byref(stream), 1)
    found["cuCtxPopCurrent without a context"] = asked("cuCtxPopCurrent_v2", byref(other))
    found["cuCtxSetCurrent"] = asked("cuCtxSetCurrent", asked.context)
    found["cuMemAlloc of nothing"] = asked.allocated(0)[0]
    found["cuMemAlloc of 2^60 bytes"] = asked.allocated(1 << 60)[0]
    status, memory = asked.allocated(4096)
    found["cuMemAlloc of 4096, and its address modulo 256"] = [status, memory.value % 256]
    found["the memory type of device memory"] = asked.attribute(2, memory.value)
    found["its device"] = asked.attribute(9, memory.value)
    found["the memory type of its last byte"] = asked.attribute(2, memory.value + 4095)
    host = ctypes.create_string_buffer(64)
    found["the memory type of the host's memory"] = asked.attribute(2, ctypes.addressof(host))
    found["cuMemFree of 0"] = asked("cuMemFree_v2", c_uint64(0))
    found["cuStreamCreate with an unknown flag"] = asked("cuStreamCreate", byref(stream), 0x80)
    found["cuEventCreate with an unknown flag"] = asked("cuEventCreate", byref(event), 0x4000)
    found["cuStreamCreate"] = asked("cuStreamCreate", byref(stream), 1)
    found["cuEventCreate"] = asked("cuEventCreate", byref(event), 2)
    found["cuEventQuery of an event never recorded"] = asked("cuEventQuery", event)
    found["cuStreamWaitEvent on such an event"] = asked("cuStreamWaitEvent", stream, event, 0)
    found["cuStreamSynchronize of the NULL stream"] = asked("cuStreamSynchronize", NULL)
    found.update(of_captures(asked, stream, event, memory))
    found.update(of_cublaslt(asked, memory))
    asked("cuEventDestroy_v2", event), asked("cuStreamDestroy_v2", stream), asked("cuMemFree_v2", memory)
    asked("cuCtxSetCurrent", NULL), asked("cuDevicePrimaryCtxRelease_v2", 0)
    return found


def of_captures(asked: Asked, stream: c_void_p, event: c_void_p, memory: c_uint64) -> dict[str, object]:
    """What a capture forbids, each in a capture of its own since it ends one."""
    found: dict[str, object] = {}
    graph, count, state = c_void_p(), c_size_t(4096), c_int()
    questions = {
        "cuMemAlloc": lambda: asked.allocated(16)[0],
        "cuStreamSynchronize of its stream": lambda: asked("cuStreamSynchronize", stream),
        "cuEventQuery of an event of its own": lambda: (asked("cuEventRecord", event, stream), asked("cuEventQuery", event))[1],
        "cuCtxSynchronize": lambda: asked("cuCtxSynchronize"),
        "cuMemsetD8Async on its stream": lambda: asked("cuMemsetD8Async", memory, 0, count, stream),
        "cuStreamBeginCapture again": lambda: asked("cuStreamBeginCapture_v2", stream, 0),
    }
    for name, question in questions.items():
        asked("cuStreamBeginCapture_v2", stream, 0)
        answer = question()
        asked("cuStreamIsCapturing", stream, byref(state))
        ended = asked("cuStreamEndCapture", stream, byref(graph))
        if graph.value:
            asked("cuGraphDestroy", graph)
        graph.value = None
        found[f"{name} in a global capture; its state; its end"] = [answer, state.value, ended]
    found["cuStreamEndCapture without a beginning"] = asked("cuStreamEndCapture", stream, byref(graph))
    found["cuStreamBeginCapture of the NULL stream"] = asked("cuStreamBeginCapture_v2", NULL, 0)
    return found


def of_cublaslt(asked: Asked, memory: c_uint64) -> dict[str, object]:
    """What the heuristic refuses: [status, how many algorithms] of products of 64 x 32 x 64 in f32."""
    found: dict[str, object] = {"cublasLtCreate": asked("cublasLtCreate", byref(asked.handle))}
    for name, order, bias, stride, batch_step in (
        ("column order, bias", 0, True, 64, 0),
        ("row order, bias", 1, True, 32, 0),
        ("row order, no bias", 1, False, 32, 0),
        ("columns that overlap", 0, False, 63, 0),
        ("a batch of two behind each other", 0, True, 64, 64 * 32),
        ("a batch of two before each other", 0, True, 64, -64 * 32),
    ):
        found[f"heuristic, D in {name}"] = _heuristic(asked, memory, order, bias, stride, batch_step)
    asked("cublasLtDestroy", asked.handle)
    return found


def _heuristic(asked: Asked, memory: c_uint64, order: int, bias: bool, stride: int, batch_step: int) -> list[int]:
    operation, preference = (ctypes.create_string_buffer(256) for _ in range(2))
    layouts = [ctypes.create_string_buffer(256) for _ in range(3)]
    asked("cublasLtMatmulDescInit_internal", operation, c_size_t(256), 68, 0)
    for number, value in ((3, c_int(1)), (7, c_int(4 if bias else 1)), (8, c_uint64(memory.value if bias else 0))):
        asked("cublasLtMatmulDescSetAttribute", operation, number, byref(value), c_size_t(ctypes.sizeof(value)))
    for layout, rows, columns, leading in zip(layouts, (64, 64, 64), (64, 32, 32), (64, 64, stride)):
        shape = (c_uint64(rows), c_uint64(columns), ctypes.c_int64(leading))
        asked("cublasLtMatrixLayoutInit_internal", layout, c_size_t(256), 0, *shape)
        settings = [(5, c_int(2)), (6, ctypes.c_int64(batch_step if layout is layouts[2] else 0))] if batch_step else []
        for number, value in [*settings, *([(1, c_int(order))] if layout is layouts[2] else [])]:
            asked("cublasLtMatrixLayoutSetAttribute", layout, number, byref(value), c_size_t(ctypes.sizeof(value)))
    asked("cublasLtMatmulPreferenceInit_internal", preference, c_size_t(256))
    results, count = ctypes.create_string_buffer(96 * 4), c_int()
    status = asked(
        "cublasLtMatmulAlgoGetHeuristic", asked.handle, operation, *layouts, layouts[2], preference, 4, results, byref(count)
    )
    return [status, min(count.value, 1)]


def compare(simulator: Path) -> int:
    """Both answers to each question; how many differ."""
    environments = [os.environ, {**os.environ, "XQKV_CUDA_LIBRARY": str(simulator), "XQKV_CUBLASLT_LIBRARY": str(simulator)}]
    run = [sys.executable, __file__]
    real, simulated = (json.loads(subprocess.run(run, env=env, capture_output=True, check=True).stdout) for env in environments)
    for question, answer in simulated.items():
        verdict = "" if real.get(question) == answer else "   DIFFERS"
        print(f"{question:<72} simulated {answer!s:<16} real {real.get(question)!s:<16}{verdict}")
    return sum(real.get(question) != answer for question, answer in simulated.items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", type=Path, metavar="LIBGPUSIM")
    arguments = parser.parse_args()
    if arguments.compare is not None:
        return min(compare(arguments.compare.resolve()), 100)
    print(json.dumps(answers(Asked()), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
