"""Candidates that Python has no linear layer of: oneDNN by its C functions, CTranslate2 by a symbol of its library."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from candidates import Numpy, Unsupported, from_bits, to_bits
from shapes import Case

# Of dnnl_types.h: dnnl_data_type_t, and the status of what a CPU cannot do.
DATA_TYPES = {"f16": 1, "bf16": 2, "f32": 3}
UNIMPLEMENTED = 3


class OneDnn:
    """matmul of the onednn-cpu-gomp package, with the weights in the layout that it asks for."""

    products = 1

    def __init__(self, threads: int):
        del threads  # OMP_NUM_THREADS says it.
        self.library = compiled(Path(__file__).parent / "onednn.c", Path(sys.prefix))

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Reorders the weights of all copies."""
        self.case, self.last = case, to_bits(np.zeros((case.rows, case.outputs), np.float32), case.dtype)
        self.kept = [to_bits(numbers, case.dtype) for numbers in (weight, bias, rows)]
        addresses = [ctypes.c_void_p(numbers.ctypes.data) for numbers in (*self.kept, self.last)]
        sizes = (ctypes.c_int64(size) for size in (case.rows, case.inputs, case.outputs))
        self.linear = ctypes.c_void_p()
        made = ctypes.byref(self.linear)
        status = self.library.linear_new(DATA_TYPES[case.dtype], *sizes, case.copies, *addresses, made)
        if status == UNIMPLEMENTED:
            raise Unsupported(f"oneDNN has no {case.dtype} matmul on this CPU")
        if status:
            raise RuntimeError(f"oneDNN's status {status}")

    def run(self, copy: int) -> None:
        """One call."""
        if self.library.linear_run(self.linear, copy):
            raise RuntimeError("oneDNN failed")

    def result(self) -> np.ndarray:
        """What the last call wrote, in f32."""
        return from_bits(self.last, self.case.dtype)


class CTranslate2(Numpy):
    """Its float product, which its layers call; the bias, a step of its own there, is not timed."""

    SYMBOL = "_ZN11ctranslate210primitivesILNS_6DeviceE0EE4gemmIffEEvbbbblllfPKT_lS6_lfPT0_lPKS7_"

    def __init__(self, threads: int):
        import ctranslate2

        folder = Path(ctranslate2.__file__).parent.parent / "ctranslate2.libs"
        library = ctypes.CDLL(str(next(folder.glob("libctranslate2*.so*"))))
        library._ZN11ctranslate215set_num_threadsEm(ctypes.c_size_t(threads))
        self.function = getattr(library, self.SYMBOL)
        self.function.restype = None

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Copies the weights and makes the arguments."""
        if case.dtype != "f32":
            raise Unsupported(f"CTranslate2's CPU has no {case.dtype} product")
        super().prepare(case, weight, bias, rows)
        self.arguments = [self.arguments_of(case, matrix) for matrix in self.weights]

    def arguments_of(self, case: Case, weight: np.ndarray) -> tuple:
        """Whether each is packed or turned round, sizes, factors, addresses with their strides."""
        kinds = (ctypes.c_bool(kind) for kind in (False, False, False, True))
        sizes = (ctypes.c_int64(size) for size in (case.rows, case.outputs, case.inputs))
        rows, matrix, result = (ctypes.c_void_p(one.ctypes.data) for one in (self.rows, weight, self.last))
        depth, width = ctypes.c_int64(case.inputs), ctypes.c_int64(case.outputs)
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        return (*kinds, *sizes, one, rows, depth, matrix, depth, zero, result, width, None)

    def run(self, copy: int) -> None:
        """One call."""
        self.function(*self.arguments[copy])

    def result(self) -> np.ndarray:
        """What the last call wrote, with the bias."""
        return self.last + self.bias


def compiled(source: Path, prefix: Path) -> ctypes.CDLL:
    """A shared library of a C file and oneDNN."""
    found = next(iter(sorted((prefix / "lib").glob("libdnnl.so.*"))), None)
    if not found or not (prefix / "include" / "dnnl.h").exists():
        raise ImportError("onednn-cpu-gomp and onednn-devel-cpu-gomp are not installed")
    # The folder may go once the library is mapped.
    with tempfile.TemporaryDirectory() as folder:
        file = f"{folder}/onednn.so"
        flags = ["-O2", "-shared", "-fPIC", f"-I{prefix}/include", f"-Wl,-rpath,{prefix}/lib"]
        subprocess.run(["cc", *flags, str(source), str(found), "-o", file], check=True)
        return ctypes.CDLL(file)


NATIVE = {"onednn": OneDnn, "ctranslate2": CTranslate2}
