"""A weight transaction."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from ._abi import xqkv_extent, xqkv_fused_order, xqkv_kind, xqkv_layout, xqkv_memory, xqkv_ownership, xqkv_part
from ._library import Handle, call, created
from .arrays import array_on, scale_tensor, tensor_of
from .device_arrays import DeviceArray, is_from_device
from .checkpoint import Checkpoint
from .comm import raised_by

if TYPE_CHECKING:
    from .projection import Projection


class Update(Handle):
    """Begin, put or read, commit or abandon. As a context manager it commits, or abandons when its body raises."""

    def __init__(self, projection: Projection) -> None:
        super().__init__(created("xqkv_update_begin", projection.handle), "xqkv_update_abandon")
        self._device, self._projection = projection.device, projection

    def put(
        self,
        layer: int,
        part: int,
        source: Any,
        *,
        kind: int = xqkv_kind.WEIGHT,
        extent: int = xqkv_extent.WHOLE,
        layout: int = xqkv_layout.OUT_IN,
        fused_order: int = xqkv_fused_order.CONCATENATED,
        convert: bool = False,
        borrow: bool = False,
        scale: Any = None,
    ) -> None:
        """Takes this rank's rows of a tensor; they are copied before the call returns. On CUDA it may be in the
        device's memory, written already: no stream is waited for. `borrow` uses that memory in place, which must then
        stay for as long as any version of the weights has it and work launched with those runs. A weight is an array
        [outputs, inputs], or [inputs, outputs] with `layout` IN_OUT; `fused_order` is about fused parts. One of int8 has
        a `scale`, by which its elements count: an array [outputs], or one number for all."""
        name = xqkv_part(part).name.lower()
        on_device = self._device is not None and is_from_device(source)
        array = array_on(self._device if on_device else None, source, None, name)
        tensor = tensor_of(array, name, layout)
        tensor.memory = xqkv_memory.DEVICE if isinstance(array, DeviceArray) else xqkv_memory.HOST
        tensor.ownership = xqkv_ownership.BORROW if borrow else xqkv_ownership.COPY
        tensor.extent, tensor.convert, tensor.fused_order = extent, int(convert), fused_order
        scales = None if scale is None else scale_tensor(tensor, scale, f"{name} scale")
        call("xqkv_update_put", self.handle, layer, part, kind, ctypes.byref(tensor))
        del scales  # Read during the call.

    def clear(self, layer: int, part: int, *, kind: int = xqkv_kind.WEIGHT) -> None:
        """Has the commit remove a tensor."""
        call("xqkv_update_clear", self.handle, layer, part, kind)

    def read(self, checkpoint: Checkpoint) -> None:
        """Takes all of this rank's layers from a checkpoint."""
        call("xqkv_update_read_checkpoint", self.handle, ctypes.byref(checkpoint.plain))

    @property
    def commit_bytes(self) -> int:
        """What a commit of the update as it is would take from the backend's memory."""
        taken = ctypes.c_int64()
        call("xqkv_update_get_commit_bytes", self.handle, ctypes.byref(taken))
        return taken.value

    def commit(self) -> int:
        """Makes it the projection's weights, all at once, and gives their version. With a communicator all ranks make
        this call, and it ends on all of them alike."""
        version = ctypes.c_int64()
        with raised_by(self._projection.comm):
            call("xqkv_update_commit", self.handle, ctypes.byref(version))
        self._forget()
        return version.value

    abandon = Handle.close

    def __exit__(self, *raised: object) -> None:
        if raised[0] is None and self._handle is not None:
            self.commit()
        self.close()
