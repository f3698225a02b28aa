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
DATA_TYPES = {"f16": 1, "bf16": 2, "f32": 3, "int8": 5}
UNIMPLEMENTED = 3


class OneDnn:
    """matmul of the onednn-cpu-gomp package, with the weights in the layout that it asks for. Of int8 the rows are
    integers already, with one scale for all: it has no others for rows, and its users quantise them beforehand."""

    products = 1
    dtypes = ("f32", "bf16", "f16", "int8")

    def __init__(self, threads: int):
        del threads  # OMP_NUM_THREADS says it.
        self.library = compiled(Path(__file__).parent / "onednn.c", Path(sys.prefix))

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Reorders the weights of all copies."""
        self.case, self.last = case, to_bits(np.zeros((case.rows, case.outputs), np.float32), case.rows_dtype)
        scales, addresses = None, []
        if case.dtype == "int8":
            # Without VNNI it adds two products in 16 bits, which overflow where weights use all of theirs.
            most = 127 if "vnni" in Path("/proc/cpuinfo").read_text() else 63
            (rows, row_scale), (weight, scales) = integers_of(rows.reshape(1, -1)), integers_of(weight, most)
            scales = np.concatenate([row_scale, scales])
            self.kept = [weight, bias, rows, scales]
        else:
            self.kept = [to_bits(numbers, case.dtype) for numbers in (weight, bias, rows)]
        addresses = [ctypes.c_void_p(numbers.ctypes.data) for numbers in (*self.kept[:3], self.last)]
        addresses.append(ctypes.c_void_p(None if scales is None else scales.ctypes.data))
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
        return from_bits(self.last, self.case.rows_dtype)


def integers_of(rows: np.ndarray, most: int = 127) -> tuple[np.ndarray, np.ndarray]:
    """Each row's nearest integers, and its scale."""
    scales = np.abs(rows).max(axis=1) / np.float32(most)
    return np.rint(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32)


class CTranslate2(Numpy):
    """Its float product, which its layers call; the bias, a step of its own there, is not timed."""

    SYMBOL = "_ZN11ctranslate210primitivesILNS_6DeviceE0EE4gemmIffEEvbbbblllfPKT_lS6_lfPT0_lPKS7_"
    compensation = None

    def __init__(self, threads: int):
        import ctranslate2

        folder = Path(ctranslate2.__file__).parent.parent / "ctranslate2.libs"
        self.library = ctypes.CDLL(str(next(folder.glob("libctranslate2*.so*"))))
        self.library._ZN11ctranslate215set_num_threadsEm(ctypes.c_size_t(threads))
        self.function = getattr(self.library, self.SYMBOL)
        self.function.restype = None

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Copies the weights and makes the arguments."""
        super().prepare(case, weight, bias, rows)
        self.arguments = [self.arguments_of(case, matrix) for matrix in self.weights]

    def arguments_of(self, case: Case, weight: np.ndarray) -> tuple:
        """Whether each is packed or turned round, sizes, factors, addresses with their strides."""
        kinds = (ctypes.c_bool(kind) for kind in (False, False, False, True))
        sizes = (ctypes.c_int64(size) for size in (case.rows, case.outputs, case.inputs))
        rows, matrix, result = (ctypes.c_void_p(one.ctypes.data) for one in (self.rows, weight, self.last))
        depth, width = ctypes.c_int64(case.inputs), ctypes.c_int64(case.outputs)
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        shift = None if self.compensation is None else ctypes.c_void_p(self.compensation.ctypes.data)
        return (*kinds, *sizes, one, rows, depth, matrix, depth, zero, result, width, shift)

    def run(self, copy: int) -> None:
        """One call."""
        self.function(*self.arguments[copy])

    def result(self) -> np.ndarray:
        """What the last call wrote, with the bias."""
        return self.last + self.bias


class CTranslate2Int8(CTranslate2):
    """Its layers' three steps: rows to integers, the product, and numbers of the sums with the bias."""

    dtypes = ("int8",)
    SYMBOL = "_ZN11ctranslate210primitivesILNS_6DeviceE0EE4gemmIaiEEvbbbblllfPKT_lS6_lfPT0_lPKS7_"
    QUANTIZE = "_ZN11ctranslate23cpu11quantize_s8ILNS0_6CpuIsaE{}EEEvPKfPaPfllbb"
    DEQUANTIZE = (
        "_ZN11ctranslate23cpu22dequantize_gemm_outputILNS0_6CpuIsaE{}EEEvPKiPKfS6_llPfS6_PKNS_3ops14ActivationTypeE"
    )

    def __init__(self, threads: int):
        super().__init__(threads)
        # Its numbers of AVX-512 and of AVX2.
        instructions = 3 if "avx512f" in Path("/proc/cpuinfo").read_text() else 2
        self.quantize, self.dequantize = (
            getattr(self.library, name.format(instructions)) for name in (self.QUANTIZE, self.DEQUANTIZE)
        )

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Makes the integers of all copies."""
        is_shifted = bool(self.library._ZN11ctranslate23cpu19prefer_u8s8s32_gemmEv() & 1)
        integers, scales = integers_of(weight)
        # Where rows are unsigned, what their shift adds to each sum.
        self.compensation = (-128 * integers.sum(axis=1, dtype=np.int32)).astype(np.int32) if is_shifted else None
        self.weights = [integers.copy() for _ in range(case.copies)]
        self.given, self.bias, self.result_rows = rows, bias, np.zeros((case.rows, case.outputs), np.float32)
        self.rows, self.last = np.zeros(rows.shape, np.int8), np.zeros((case.rows, case.outputs), np.int32)
        # Its scales are what numbers were multiplied by.
        self.scales, self.row_scales = (1 / scales).astype(np.float32), np.zeros(case.rows, np.float32)
        self.arguments = [self.arguments_of(case, matrix) for matrix in self.weights]
        given, rows, scales = (ctypes.c_void_p(one.ctypes.data) for one in (self.given, self.rows, self.row_scales))
        count, depth, width = (ctypes.c_int64(size) for size in (case.rows, case.inputs, case.outputs))
        self.before = (given, rows, scales, count, depth, ctypes.c_bool(is_shifted), ctypes.c_bool(True))
        sums, of_weights, to, vector = (
            ctypes.c_void_p(one.ctypes.data) for one in (self.last, self.scales, self.result_rows, bias)
        )
        self.after = (sums, scales, of_weights, count, width, to, vector, None)

    def run(self, copy: int) -> None:
        """One call."""
        self.quantize(*self.before)
        self.function(*self.arguments[copy])
        self.dequantize(*self.after)

    def result(self) -> np.ndarray:
        """What the last call wrote."""
        return self.result_rows


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


NATIVE = {"onednn": OneDnn, "ctranslate2": CTranslate2, "ctranslate2-int8": CTranslate2Int8}
