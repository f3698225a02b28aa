"""One backend on one device."""

from __future__ import annotations

import ctypes

from ._abi import xqkv_backend, xqkv_context_info, xqkv_context_options, xqkv_instruction_set
from ._library import Handle, call, created, initialised


class Context(Handle):
    """The host's threads, or one CUDA device. Any thread may use it, and projections outlive it.

    On CUDA arrays are the device's, by __cuda_array_interface__ or DLPack.
    """

    def __init__(
        self,
        *,
        backend: int = xqkv_backend.HOST,
        device: int = 0,
        thread_count: int = 0,
        instruction_set: int = xqkv_instruction_set.AUTO,
    ) -> None:
        options = initialised(xqkv_context_options)
        options.backend = backend
        options.device = device
        options.thread_count = thread_count
        options.instruction_set = instruction_set
        super().__init__(created("xqkv_context_create", ctypes.byref(options)), "xqkv_context_destroy")

    def _info(self) -> xqkv_context_info:
        info = initialised(xqkv_context_info)
        call("xqkv_context_get_info", self.handle, ctypes.byref(info))
        return info

    @property
    def backend(self) -> xqkv_backend:
        """Which one it is; never AUTO."""
        return xqkv_backend(self._info().backend)

    def reclaim(self, *streams: int) -> int:
        """Frees device memory of weights that no projection has any more: after what is now on these streams, or at
        once if there are none, which is the caller's word that no work uses them. Gives the bytes that still wait."""
        waiting = ctypes.c_int64()
        array = (ctypes.c_void_p * len(streams))(*streams)
        call("xqkv_context_reclaim", self.handle, array, len(streams), ctypes.byref(waiting))
        return waiting.value

    @property
    def thread_count(self) -> int:
        """Threads that work on one call, the caller's included."""
        return int(self._info().thread_count)

    @property
    def instruction_set(self) -> xqkv_instruction_set:
        """The vector instructions in use."""
        return xqkv_instruction_set(self._info().instruction_set)
