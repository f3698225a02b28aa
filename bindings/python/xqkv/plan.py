"""Everything slow done up front for one shape of call."""

from __future__ import annotations

import ctypes

from ._abi import xqkv_forward, xqkv_plan_flag, xqkv_plan_options, xqkv_workspace
from ._library import Handle, call, created, initialised


class Plan(Handle):
    """Serves its projection's forwards of one shape, with at most as many rows; made by Projection.plan.

    Immutable: any thread and any stream may use it, several at once.
    """

    def __init__(
        self,
        projection: int,
        example: xqkv_forward,
        alignment_bytes: int = 0,
        workspace_limit: int = 0,
        is_timed: bool = False,
    ) -> None:
        options = initialised(xqkv_plan_options)
        options.flags = xqkv_plan_flag.TIMED if is_timed else 0
        options.alignment_bytes, options.workspace_limit = alignment_bytes, workspace_limit
        handle = created("xqkv_plan_create", projection, ctypes.byref(example), ctypes.byref(options))
        super().__init__(handle, "xqkv_plan_destroy")

    @property
    def workspace_bytes(self) -> int:
        """Scratch memory of the device with which forwards are fastest."""
        workspace = initialised(xqkv_workspace)
        call("xqkv_plan_get_workspace", self.handle, ctypes.byref(workspace))
        return int(workspace.recommended_bytes)
