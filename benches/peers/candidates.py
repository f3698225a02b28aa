"""The libraries that are compared, each behind the same three methods. A process imports only its own."""

from __future__ import annotations

import ctypes
import tempfile
from typing import Any

import numpy as np
from shapes import Case

BITS = {"f32": np.float32, "f16": np.float16}


class Unsupported(Exception):
    """Why a candidate cannot run a case."""


class Xqkv:
    """This library by its C function; the structs are made beforehand, as an engine does."""

    products = 1
    dtypes = ("f32", "bf16", "f16", "int8")

    def __init__(self, threads: int):
        import xqkv

        self.xqkv, self.context = xqkv, xqkv.Context(backend=xqkv.Backend.HOST, thread_count=threads)

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Packs the weights of all copies, as layers of one projection."""
        dtype = self.dtype_of(case.dtype)
        # A prefill's K and V are halves of the same matrix.
        heads = case.outputs // 64 // (2 if case.is_prefill else 1)
        spec = self.xqkv.Spec(
            layer_count=case.copies, decoder_width=case.inputs, encoder_width=case.inputs, query_heads=heads,
            key_value_heads=heads, head_width=64, weight_dtype=dtype,
            query_bias=True, key_bias=True, value_bias=True,
        )  # fmt: skip
        self.projection = self.xqkv.Projection(self.context, spec)
        parts = ("KEY", "VALUE") if case.is_prefill else ("QUERY",)
        with self.projection.update() as update:
            for layer in range(case.copies):
                halves = zip(parts, np.split(weight, len(parts)), np.split(bias, len(parts)), strict=True)
                for part, matrix, vector in halves:
                    put = getattr(self.xqkv.Part, part)
                    update.put(layer, put, matrix, convert=True)
                    update.put(layer, put, vector, kind=self.xqkv.Kind.BIAS)
        self.case, self.rows = case, to_bits(rows, case.rows_dtype)
        self.results = [np.zeros((case.rows, case.outputs // len(parts)), self.rows.dtype) for _ in parts]
        side = "encoder" if case.is_prefill else "decoder"
        outputs = dict(zip(("key", "value") if case.is_prefill else ("query",), self.results, strict=True))
        self.call = self.call_of(side, self.rows, outputs, self.dtype_of(case.rows_dtype))

    def dtype_of(self, name: str) -> int:
        """The library's number of it."""
        return getattr(self.xqkv.Dtype, name.upper())

    def call_of(self, side: str, rows: np.ndarray, outputs: dict[str, np.ndarray], dtype: int) -> Any:
        """The struct of a call of one layer, and what it takes to make it."""
        from xqkv import _abi, _library

        self.function, self.error = _library.LIBRARY.xqkv_projection_forward, _abi.xqkv_error()
        call = _library.initialised(_abi.xqkv_forward)
        call.layer_count = 1
        given = getattr(call, side)
        given.data, given.rows, given.dtype = rows.ctypes.data, len(rows), dtype
        for name, output in outputs.items():
            view = getattr(call, name)
            view.data, view.dtype = output.ctypes.data, dtype
            if output.ndim == 3:
                view.layer_stride = output.strides[0] // output.itemsize
        return call

    def forward(self, call: Any) -> None:
        """Makes a call."""
        if self.function(self.projection.handle, ctypes.byref(call), None, ctypes.byref(self.error)):
            raise RuntimeError(self.error.message)

    def run(self, copy: int) -> None:
        """One call."""
        self.call.layer = copy
        self.forward(self.call)

    def result(self) -> np.ndarray:
        """What the last call wrote, in f32."""
        return np.concatenate([from_bits(result, self.case.rows_dtype) for result in self.results], axis=1)


class Torch:
    """torch.nn.functional.linear."""

    products = 1
    dtypes = ("f32", "bf16", "f16")

    def __init__(self, threads: int):
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Makes the tensors."""
        torch = self.torch
        self.dtype = self.dtype_of(case.dtype)
        one = torch.from_numpy(weight).to(self.dtype)
        self.weights = [self.packed(case, one.clone()) for _ in range(case.copies)]
        self.bias, self.rows = torch.from_numpy(bias).to(self.dtype), torch.from_numpy(rows).to(self.dtype)

    def dtype_of(self, name: str) -> Any:
        """Torch's name of it."""
        return {"f32": self.torch.float32, "f16": self.torch.float16, "bf16": self.torch.bfloat16}[name]

    def packed(self, _: Case, weight: Any) -> Any:
        """The weight as it is multiplied."""
        return weight

    def run(self, copy: int) -> None:
        """One call."""
        self.last = self.torch.nn.functional.linear(self.rows, self.weights[copy], self.bias)

    def result(self) -> np.ndarray:
        """What the last call gave, in f32."""
        return self.last.float().numpy()


class TorchPrepacked(Torch):
    """The operator that Inductor makes of a linear: oneDNN with its weights packed beforehand."""

    def packed(self, case: Case, weight: Any) -> Any:
        """oneDNN's own layout for so many rows."""
        supported = {"f32": True, "bf16": self.torch.ops.mkldnn._is_mkldnn_bf16_supported(),
                     "f16": self.torch.ops.mkldnn._is_mkldnn_fp16_supported()}  # fmt: skip
        if not supported[case.dtype]:
            raise Unsupported(f"oneDNN in torch has no {case.dtype} on this CPU")
        return self.torch.ops.mkldnn._reorder_linear_weight(weight, case.rows)

    def run(self, copy: int) -> None:
        """One call."""
        linear = self.torch.ops.mkldnn._linear_pointwise
        self.last = linear(self.rows, self.weights[copy], self.bias, "none", [], "")


class OnnxRuntime:
    """One session of a model with a Gemm node for each copy: a session each would have threads of its own."""

    dtypes = ("f32",)

    def __init__(self, threads: int):
        import onnx
        import onnxruntime

        self.onnx, self.runtime, self.threads = onnx, onnxruntime, threads

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Makes the session, which packs the weights, and binds rows and results."""
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        self.products = case.copies
        with tempfile.TemporaryDirectory() as folder:
            file = f"{folder}/model.onnx"
            self.onnx.save(self.model(case, weight, bias), file, save_as_external_data=True, location="weights")
            self.session = self.runtime.InferenceSession(file, options, ["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        value = self.runtime.OrtValue.ortvalue_from_numpy
        self.binding.bind_ortvalue_input("x", value(rows))
        for copy in range(case.copies):
            result = np.zeros((case.rows, case.outputs), np.float32)
            self.binding.bind_ortvalue_output(f"y{copy}", value(result))

    def model(self, case: Case, weight: np.ndarray, bias: np.ndarray) -> Any:
        """Products that do not wait for each other; constants of their own, or they would be made one."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        nodes, constants, outputs = [], [self.onnx.numpy_helper.from_array(bias, "b")], []
        for copy in range(case.copies):
            nodes.append(helper.make_node("Gemm", ["x", f"w{copy}", "b"], [f"y{copy}"], transB=1))
            constants.append(self.onnx.numpy_helper.from_array(different(weight, copy), f"w{copy}"))
            outputs.append(helper.make_tensor_value_info(f"y{copy}", kind, [case.rows, case.outputs]))
        source = helper.make_tensor_value_info("x", kind, [case.rows, case.inputs])
        graph = helper.make_graph(nodes, "linear", [source], outputs, constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def run(self, copy: int) -> None:
        """One call of all products."""
        del copy
        self.session.run_with_iobinding(self.binding)

    def result(self) -> np.ndarray:
        """What the last call wrote for the first copy."""
        return self.binding.copy_outputs_to_cpu()[0]


class Openvino:
    """One model with a MatMul for each copy."""

    dtypes = ("f32", "bf16", "f16")

    def __init__(self, threads: int):
        import openvino

        self.openvino, self.core, self.threads = openvino, openvino.Core(), threads

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Compiles the model, which packs the weights."""
        if case.dtype == "f16":
            raise Unsupported("OpenVINO's CPU computes f16 in f32")
        if case.dtype == "bf16" and "BF16" not in self.core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise Unsupported("OpenVINO has no bf16 on this CPU")
        from openvino import opset13 as ops

        self.products = case.copies
        source = ops.parameter([case.rows, case.inputs], np.float32)
        matrices = (ops.constant(different(weight, copy)) for copy in range(case.copies))
        results = [ops.add(ops.matmul(source, matrix, False, True), ops.constant(bias)) for matrix in matrices]
        how = {"INFERENCE_PRECISION_HINT": case.dtype, "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1}
        model = self.openvino.Model(results, [source], "linear")
        self.request = self.core.compile_model(model, "CPU", how).create_infer_request()
        self.request.set_input_tensor(self.openvino.Tensor(rows, shared_memory=True))

    def run(self, copy: int) -> None:
        """One call of all products."""
        del copy
        self.request.infer()

    def result(self) -> np.ndarray:
        """What the last call wrote for the first copy."""
        return self.request.get_output_tensor(0).data


class Numpy:
    """numpy's product, which is OpenBLAS's."""

    products = 1
    dtypes = ("f32",)

    def __init__(self, threads: int):
        del threads  # OPENBLAS_NUM_THREADS says it.

    def prepare(self, case: Case, weight: np.ndarray, bias: np.ndarray, rows: np.ndarray) -> None:
        """Copies the weights."""
        self.weights = [weight.copy() for _ in range(case.copies)]
        self.rows, self.bias = rows, bias
        self.last = np.zeros((case.rows, case.outputs), np.float32)

    def run(self, copy: int) -> None:
        """One call."""
        np.matmul(self.rows, self.weights[copy].T, out=self.last)
        self.last += self.bias

    def result(self) -> np.ndarray:
        """What the last call wrote."""
        return self.last


def different(weight: np.ndarray, copy: int) -> np.ndarray:
    """The first copy as it is, the others each with another number in the corner."""
    changed = weight.copy()
    changed[-1, -1] += copy
    return changed


def to_bits(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers in memory; bfloat16 as the upper halves of f32 that need no rounding."""
    if dtype == "bf16":
        return (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return numbers.astype(BITS[dtype])


def from_bits(numbers: np.ndarray, dtype: str) -> np.ndarray:
    """The other way."""
    if dtype == "bf16":
        return (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float32)


CANDIDATES = {
    "xqkv": Xqkv,
    "torch linear": Torch,
    "torch prepacked": TorchPrepacked,
    "onnxruntime": OnnxRuntime,
    "openvino": Openvino,
    "numpy": Numpy,
}
