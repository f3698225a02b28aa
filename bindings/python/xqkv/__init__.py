"""Tensor-parallel cross-attention Q, K, V projection: the Python side of the xqkv C library.

Arrays go in and out without copies: numpy's, whatever else speaks DLPack, and CUDA's by the array interface. See
include/xqkv.h for what each call promises; names are the same here.
"""

from ._abi import (
    xqkv_backend as Backend,
    xqkv_comm_flag as CommFlag,
    xqkv_comm_kind as CommKind,
    xqkv_dtype as Dtype,
    xqkv_extent as Extent,
    xqkv_fused_order as FusedOrder,
    xqkv_instruction_set as InstructionSet,
    xqkv_kind as Kind,
    xqkv_layout as Layout,
    xqkv_norm as Norm,
    xqkv_part as Part,
    xqkv_projection_flag as ProjectionFlag,
    xqkv_status as Status,
)
from ._library import handle_count, version
from .checkpoint import Checkpoint
from .collectives import Collectives, Memory, Message, PeerLost
from .comm import Comm
from .context import Context
from .errors import CheckpointError, InvalidArgument, NotReady, NotSupported, XqkvError
from .input import Input
from .plan import Plan
from .projection import Projection, Result
from .spec import Shard, Spec, Split
from .update import Update
from .view import View

__all__ = [
    "Backend", "Checkpoint", "CheckpointError", "Collectives", "Comm", "CommFlag", "CommKind", "Context", "Dtype",
    "Extent", "FusedOrder", "Input", "InstructionSet", "InvalidArgument", "Kind", "Layout", "Memory", "Message", "Norm",
    "NotReady", "NotSupported", "Part", "PeerLost", "Plan", "Projection", "ProjectionFlag", "Result", "Shard", "Spec",
    "Split", "Status", "Update", "View", "XqkvError", "handle_count", "version",
]
