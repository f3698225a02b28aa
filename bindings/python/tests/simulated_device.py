"""Memory of the simulated GPU (docs/gpusim.md), as the array objects that other packages would bring."""

import ctypes
import os

import numpy as np
from xqkv.device_arrays import CUDA, DLPACK_DTYPES, READ_ONLY, _Tensor, _Versioned

LIBRARY = os.environ.get("XQKV_CUDA_LIBRARY", "")
IS_SIMULATED = "gpusim" in os.path.basename(LIBRARY)
DLPACK_CODES = {dtype: code for code, dtype in DLPACK_DTYPES.items()}

_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Device:
    """The driver's functions that tests need, on a device with its primary context current."""

    def __init__(self, ordinal=0):
        self.driver = ctypes.CDLL(LIBRARY)
        self.driver.gpusim_calls.restype = ctypes.c_uint64
        self.driver.gpusim_violations.restype = ctypes.c_uint64
        self.driver.gpusim_violation.restype = ctypes.c_char_p
        context = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), ordinal)
        self.call("cuCtxSetCurrent", context)

    def call(self, name, *arguments):
        status = getattr(self.driver, name)(*arguments)
        assert status == 0, f"{name} answered {status}"

    def stream(self):
        stream = ctypes.c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), 1)
        return stream.value

    def wait(self, stream):
        self.call("cuStreamSynchronize", ctypes.c_void_p(stream))

    def calls(self, name):
        return self.driver.gpusim_calls(name.encode())

    def violations(self):
        return [self.driver.gpusim_violation(ctypes.c_uint64(n)) for n in range(self.driver.gpusim_violations())]

    def allocate(self, byte_count):
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(byte_count))
        return address.value

    def put(self, array):
        """A packed copy of a numpy array."""
        memory = Memory(self, np.ascontiguousarray(array))
        source = memory.pattern.ctypes.data
        self.call("cuMemcpyHtoD_v2", ctypes.c_uint64(memory.address), ctypes.c_void_p(source), ctypes.c_size_t(memory.bytes))
        self.call("cuCtxSynchronize")
        return memory


class Memory:
    """Device memory with a numpy array's shape, strides and dtype."""

    def __init__(self, device, pattern):
        self.device, self.pattern, self.bytes = device, pattern, pattern.nbytes
        self.address = device.allocate(pattern.nbytes)

    def read(self):
        out = np.empty_like(self.pattern)
        target, source = ctypes.c_void_p(out.ctypes.data), ctypes.c_uint64(self.address)
        self.device.call("cuMemcpyDtoH_v2", target, source, ctypes.c_size_t(self.bytes))
        return out


class Interface:
    """Speaks the array interface and nothing else."""

    def __init__(self, memory, version=3, view=None, read_only=False, **extra):
        view = memory.pattern if view is None else view
        offset = view.ctypes.data - memory.pattern.ctypes.data
        strides = None if view.flags.c_contiguous else view.strides
        self.__cuda_array_interface__ = {
            "shape": view.shape, "strides": strides, "typestr": view.dtype.str,
            "data": (memory.address + offset, read_only), "version": version,
        } | extra  # fmt: skip


class Exported:
    """Speaks DLPack and nothing else, versioned or not, and remembers which stream it was asked for."""

    def __init__(self, memory, dtype, versioned=True, read_only=False, kind=CUDA, number=0, packed=False):
        self.memory, self.versioned, self.kind, self.number = memory, versioned, kind, number
        self.asked = []
        pattern = memory.pattern
        code, bits = DLPACK_CODES[dtype]
        self.shape = (ctypes.c_int64 * pattern.ndim)(*pattern.shape)
        self.strides = (ctypes.c_int64 * pattern.ndim)(*(stride // pattern.itemsize for stride in pattern.strides))
        tensor = _Tensor(memory.address - 64, kind, number, pattern.ndim, code, bits, 1, self.shape, self.strides, 64)
        if packed:
            tensor.strides = None
        self.plain = _Versioned(1, 0, None, None, READ_ONLY if read_only else 0, tensor) if versioned else tensor

    def __dlpack_device__(self):
        return self.kind, self.number

    def __dlpack__(self, *, stream=None, **arguments):
        if not self.versioned and arguments:
            raise TypeError("max_version is not known here")
        self.asked.append(stream)
        return _new_capsule(ctypes.addressof(self.plain), b"dltensor_versioned" if self.versioned else b"dltensor", None)
