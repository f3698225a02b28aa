"""Arrays in a device's memory, on the simulated GPU that XQKV_CUDA_LIBRARY names."""

import ctypes
import os

import numpy as np
import pytest
import xqkv

WIDTH, HEADS, HEAD_WIDTH, ROWS = 8, 2, 4, 3
ROWS_IN = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH) % 5 - 2
WEIGHT = np.arange(WIDTH * WIDTH, dtype=np.float32).reshape(WIDTH, WIDTH) % 7 - 3

pytestmark = pytest.mark.skipif("XQKV_CUDA_LIBRARY" not in os.environ, reason="no CUDA driver is named")


class Device:
    """The driver, as an engine would use it."""

    def __init__(self):
        self.driver = ctypes.CDLL(os.environ["XQKV_CUDA_LIBRARY"])
        context = ctypes.c_void_p()
        self("cuInit", 0)
        self("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self("cuCtxSetCurrent", context)

    def __call__(self, name, *arguments):
        assert getattr(self.driver, name)(*arguments) == 0, name

    def allocate(self, array):
        address = ctypes.c_uint64()
        self("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(array.nbytes))
        self("cuMemcpyHtoD_v2", address, array.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(array.nbytes))
        self("cuCtxSynchronize")
        return address.value

    def fetch(self, address, shape):
        array = np.empty(shape, np.float32)
        self("cuCtxSynchronize")
        self("cuMemcpyDtoH_v2", array.ctypes.data_as(ctypes.c_void_p), ctypes.c_uint64(address), ctypes.c_size_t(array.nbytes))
        return array


class Interfaced:
    """What CuPy, Numba and torch offer."""

    def __init__(self, address, shape, strides=None, stream=None, is_read_only=False, typestr="<f4"):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "data": (address, is_read_only), "strides": strides, "stream": stream,
            "version": 3,
        }  # fmt: skip


class Exchanged:
    """What speaks DLPack: a host array of numpy's whose capsule was made to say that it is a device's."""

    def __init__(self, address, shape):
        self.array, self.address, self.asked = np.empty(shape, np.float32), address, None

    def __dlpack_device__(self):
        return (2, 0)

    def __dlpack__(self, *, stream=None):
        self.asked = stream
        capsule = self.array.__dlpack__()
        get = ctypes.pythonapi.PyCapsule_GetPointer
        get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        first = get(capsule, b"dltensor")
        ctypes.c_uint64.from_address(first).value = self.address
        ctypes.c_int32.from_address(first + 8).value = 2
        return capsule


@pytest.fixture(scope="module")
def device():
    return Device()


@pytest.fixture
def projection(device):
    spec = xqkv.Spec(
        weight_dtype=xqkv.Dtype.F32, layer_count=1, decoder_width=WIDTH, encoder_width=WIDTH,
        query_heads=HEADS, key_value_heads=HEADS, head_width=HEAD_WIDTH,
    )  # fmt: skip
    with xqkv.Context(backend=xqkv.Backend.CUDA) as context, xqkv.Projection(context, spec) as projection:
        assert context.backend == xqkv.Backend.CUDA
        with projection.update() as update:
            update.put(0, xqkv.Part.QUERY, WEIGHT)
            update.put(0, xqkv.Part.KEY_VALUE, Interfaced(device.allocate(np.vstack([WEIGHT, -WEIGHT])), (2 * WIDTH, WIDTH)))
            assert update.commit_bytes >= 3 * WEIGHT.nbytes
        yield projection
    assert xqkv.handle_count() == 0


def test_arrays_of_both_protocols_are_read_and_written_where_they_are(device, projection):
    rows, out = device.allocate(ROWS_IN), device.allocate(np.full((3, ROWS, WIDTH), np.nan, np.float32))
    query, value = Interfaced(out, (ROWS, HEADS, HEAD_WIDTH)), Interfaced(out + 2 * ROWS_IN.nbytes, (ROWS, WIDTH))
    key = Exchanged(out + ROWS_IN.nbytes, (ROWS, WIDTH))
    encoder = Exchanged(rows, (ROWS, WIDTH))
    result = projection.forward(Interfaced(rows, (ROWS, WIDTH)), encoder, query=query, key=key, value=value)
    exact = ROWS_IN @ WEIGHT.T
    assert np.array_equal(device.fetch(out, (3, ROWS, WIDTH)), np.stack([exact, exact, -exact]))
    assert result.multiply_adds == 3 * ROWS * WIDTH * WIDTH and encoder.asked == 1


def test_the_automatic_backend_is_cuda_where_a_device_answers(device):
    with xqkv.Context(backend=xqkv.Backend.AUTO) as context:
        assert context.backend == xqkv.Backend.CUDA and context.reclaim() == 0


def test_strides_in_bytes_and_a_plan(device, projection):
    wide = np.full((ROWS, 2 * WIDTH), np.nan, np.float32)
    wide[:, :WIDTH] = ROWS_IN
    decoder = Interfaced(device.allocate(wide), (ROWS, WIDTH), strides=(2 * WIDTH * 4, 4))
    out = device.allocate(wide)
    query = Interfaced(out, (ROWS, WIDTH), strides=(2 * WIDTH * 4, 4))
    with projection.plan(decoder, query=query) as plan:
        assert plan.workspace_bytes > 0
        projection.forward(decoder, query=query, plan=plan)
        assert np.array_equal(device.fetch(out, wide.shape)[:, :WIDTH], ROWS_IN @ WEIGHT.T)


def test_a_borrowed_weight_takes_no_memory(device, projection):
    weight = Interfaced(device.allocate(2 * WEIGHT), (WIDTH, WIDTH))
    rows, out = device.allocate(ROWS_IN), device.allocate(ROWS_IN)
    with projection.update() as update:
        before = update.commit_bytes
        update.put(0, xqkv.Part.QUERY, weight, borrow=True)
        assert update.commit_bytes == before - WEIGHT.nbytes
    projection.forward(Interfaced(rows, (ROWS, WIDTH)), query=Interfaced(out, (ROWS, WIDTH)))
    assert np.array_equal(device.fetch(out, (ROWS, WIDTH)), 2 * ROWS_IN @ WEIGHT.T)


def test_what_cannot_be_is_refused_before_the_library_is_called(device, projection):
    rows = device.allocate(ROWS_IN)
    good, shape = Interfaced(rows, (ROWS, WIDTH)), (ROWS, WIDTH)
    with pytest.raises(TypeError, match="host memory"):
        projection.forward(ROWS_IN, query=good)
    with pytest.raises(ValueError, match="not given"):
        projection.forward(good)
    with pytest.raises(ValueError, match="read-only"):
        projection.forward(good, query=Interfaced(rows, shape, is_read_only=True))
    with pytest.raises(ValueError, match="stream 7"):
        projection.forward(Interfaced(rows, shape, stream=7), query=good)
    with pytest.raises(TypeError, match="<f8"):
        projection.forward(Interfaced(rows, shape, typestr="<f8"), query=good)
    with xqkv.Context() as host, xqkv.Projection(host, projection.spec) as other:
        with pytest.raises(TypeError, match="device's memory"):
            other.forward(good, query=np.empty(shape, np.float32))
