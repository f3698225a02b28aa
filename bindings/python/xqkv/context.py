"""One backend on one device."""

from __future__ import annotations

import ctypes

from ._abi import xqkv_backend, xqkv_context_info, xqkv_context_options, xqkv_instruction_set
from ._library import Handle, call, created, initialised


class Context(Handle):
    """The host's threads. Any thread may use it, and projections outlive it."""

    def __init__(self, *, thread_count: int = 0, instruction_set: int = xqkv_instruction_set.AUTO) -> None:
        options = initialised(xqkv_context_options)
        options.backend = xqkv_backend.HOST
        options.thread_count = thread_count
        options.instruction_set = instruction_set
        super().__init__(created("xqkv_context_create", ctypes.byref(options)), "xqkv_context_destroy")

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
        """The vector instructions in use."""
        return xqkv_instruction_set(self._info().instruction_set)
