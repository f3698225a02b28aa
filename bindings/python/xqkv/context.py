"""One backend on one device."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from ._abi import (
    xqkv_backend,
    xqkv_context_info,
    xqkv_context_options,
    xqkv_instruction_set,
    xqkv_parallel_for_callback,
)
from ._library import Handle, call, created, initialised


ParallelFor = Callable[[int, Callable[[int], None]], None]


class Context(Handle):
    """The host's threads, or one CUDA device. Any thread may use it, and projections outlive it."""

    def __init__(
        self,
        *,
        backend: int = xqkv_backend.HOST,
        device: int = 0,
        thread_count: int = 0,
        instruction_set: int = xqkv_instruction_set.AUTO,
        cuda_context: int | None = None,
        cublaslt_handle: int | None = None,
        parallel_for: ParallelFor | None = None,
    ) -> None:
        """The CUcontext and the cublasLtHandle_t are addresses, lent for as long as the context and its projections
        live. `parallel_for(count, task)` calls task(index) once for each index below count, on threads of its own, and
        returns when all are done; the host's work is then done on these, and `thread_count` says how many they are."""
        options = initialised(xqkv_context_options)
        options.backend, options.device = backend, device
        options.thread_count = thread_count
        options.instruction_set = instruction_set
        options.cuda_context, options.cublaslt_handle = cuda_context, cublaslt_handle
        # The library may call it until the last projection is gone, so projections keep it as well.
        self.parallel_for = None if parallel_for is None else _callback(parallel_for)
        if self.parallel_for is not None:
            options.parallel_for = self.parallel_for
        super().__init__(created("xqkv_context_create", ctypes.byref(options)), "xqkv_context_destroy")

    def reclaim(self, *streams: int) -> int:
        """Frees retired device memory of weights behind the work that is now on the streams; without any at once, which
        is the caller's word that no such work is left. Gives how many bytes still wait."""
        handles = (ctypes.c_void_p * len(streams))(*streams) if streams else None
        waiting = ctypes.c_int64()
        call("xqkv_context_reclaim", self.handle, handles, len(streams), ctypes.byref(waiting))
        return waiting.value

    def _info(self) -> xqkv_context_info:
        info = initialised(xqkv_context_info)
        call("xqkv_context_get_info", self.handle, ctypes.byref(info))
        return info

    @property
    def thread_count(self) -> int:
        """Threads that work on one call, the caller's included."""
        return int(self._info().thread_count)

    @property
    def instruction_set(self) -> xqkv_instruction_set:
        """The vector instructions in use; AUTO on CUDA, which has none."""
        return xqkv_instruction_set(self._info().instruction_set)

    @property
    def backend(self) -> xqkv_backend:
        """Where it runs, never AUTO."""
        return xqkv_backend(self._info().backend)

    @property
    def device(self) -> int:
        """The CUDA device's ordinal."""
        return int(self._info().device)

    @property
    def compute_capability(self) -> int:
        """CUDA: such as 90 for 9.0. Host: 0, as with the next three."""
        return int(self._info().compute_capability)

    @property
    def multiprocessor_count(self) -> int:
        """CUDA: multiprocessors of the device."""
        return int(self._info().multiprocessor_count)

    @property
    def driver_version(self) -> int:
        """CUDA: such as 13000."""
        return int(self._info().driver_version)

    @property
    def cublaslt_version(self) -> int:
        """CUDA: such as 130401."""
        return int(self._info().cublaslt_version)


def _callback(parallel_for: ParallelFor) -> Any:
    def run(count: int, task: Callable[[int, int | None], None], task_user: int | None, _: int | None) -> None:
        parallel_for(count, lambda index: task(index, task_user))

    return xqkv_parallel_for_callback(run)
