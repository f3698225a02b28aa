"""The Python binding's ctypes layer, without the package's arrays, which need numpy and know host memory only: here all
memory is a device's, and an address is a plain integer."""

import ctypes
import sys
import types
from pathlib import Path

HERE = Path(__file__).resolve().parent


def _binding() -> None:
    """Makes `xqkv` a package of the binding's folder without running its __init__."""
    places = [HERE / "python/xqkv", HERE.parent / "bindings/python/xqkv"]
    package = types.ModuleType("xqkv")
    package.__path__ = [str(place) for place in places if place.is_dir()][:1]
    sys.modules["xqkv"] = package


_binding()
from xqkv import _abi as abi  # noqa: E402
from xqkv._library import Handle, call, created, initialised  # noqa: E402


class Context(Handle):
    """The CUDA backend on device 0."""

    def __init__(self) -> None:
        options = initialised(abi.xqkv_context_options)
        options.backend = abi.xqkv_backend.CUDA
        super().__init__(created("xqkv_context_create", ctypes.byref(options)), "xqkv_context_destroy")


class Projection(Handle):
    """One rank's share of a spec, with weights that lie on the device."""

    def __init__(self, context: Context, spec: abi.xqkv_spec, rank_count: int = 1) -> None:
        split = initialised(abi.xqkv_projection_options)
        split.rank_count = rank_count
        arguments = (context.handle, ctypes.byref(spec), ctypes.byref(split))
        super().__init__(created("xqkv_projection_create", *arguments), "xqkv_projection_destroy")

    def load(self, tensors: list[tuple]) -> None:
        """Commits (layer, part, kind, dtype, address, rows, columns) of this rank's own rows."""
        update = created("xqkv_update_begin", self.handle)
        for layer, part, kind, dtype, address, rows, columns in tensors:
            tensor = initialised(abi.xqkv_tensor)
            tensor.dtype, tensor.data, tensor.rows, tensor.columns = dtype, address, rows, columns
            tensor.extent, tensor.memory = abi.xqkv_extent.SHARD, abi.xqkv_memory.DEVICE
            call("xqkv_update_put", update, layer, part, kind, ctypes.byref(tensor))
        call("xqkv_update_commit", update, ctypes.byref(ctypes.c_int64()))

    def plan(self, example: abi.xqkv_forward) -> Handle:
        """A plan for calls like this one."""
        arguments = (self.handle, ctypes.byref(example), None)
        return Handle(created("xqkv_plan_create", *arguments), "xqkv_plan_destroy")

    def forward(self, forward: abi.xqkv_forward) -> None:
        """Puts the call on its stream."""
        call("xqkv_projection_forward", self.handle, ctypes.byref(forward), None)


def workspace_bytes(plan: Handle) -> int:
    """Scratch memory that a plan has use for."""
    workspace = initialised(abi.xqkv_workspace)
    call("xqkv_plan_get_workspace", plan.handle, ctypes.byref(workspace))
    return int(workspace.recommended_bytes)


def spec_of(**fields: int) -> abi.xqkv_spec:
    """A spec with these fields set."""
    spec = initialised(abi.xqkv_spec)
    for name, value in fields.items():
        setattr(spec, name, value)
    return spec


def forward_of(stream: int, **sides: tuple[int, int, int]) -> abi.xqkv_forward:
    """A call on a stream; a side is (address, dtype, rows), of which outputs use the first two."""
    forward = initialised(abi.xqkv_forward)
    forward.stream = stream
    for name, (address, dtype, rows) in sides.items():
        side = getattr(forward, name)
        side.data, side.dtype = address, dtype
        if name in ("decoder", "encoder"):
            side.rows = rows
    return forward
