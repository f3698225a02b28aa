"""One shape of call, prepared."""

from __future__ import annotations

import ctypes

from ._abi import xqkv_forward, xqkv_plan_flag, xqkv_plan_options, xqkv_workspace
from ._library import Handle, call, created, initialised


class Plan(Handle):
    """Made by `Projection.plan`; any thread and stream may use it. Destroying it waits for nothing."""

    def __init__(
        self,
        projection: Handle,
        example: xqkv_forward,
        alignment_bytes: int = 0,
        workspace_limit: int = 0,
        is_timed: bool = False,
    ) -> None:
        options = initialised(xqkv_plan_options)
        options.flags = xqkv_plan_flag.TIMED if is_timed else 0
        options.alignment_bytes, options.workspace_limit = alignment_bytes, workspace_limit
        handle = created("xqkv_plan_create", projection.handle, ctypes.byref(example), ctypes.byref(options))
        super().__init__(handle, "xqkv_plan_destroy")

    @property
    def workspace(self) -> xqkv_workspace:
        """What its calls take: minimum_bytes, recommended_bytes and alignment_bytes."""
        sizes = initialised(xqkv_workspace)
        call("xqkv_plan_get_workspace", self.handle, ctypes.byref(sizes))
        return sizes
