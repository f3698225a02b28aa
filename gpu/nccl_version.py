#!/usr/bin/env python3
"""Prints the version of the NCCL that xqkv would load, as NCCL counts it (23003 is 2.30.3), or 0 if there is none."""

import ctypes
import os

# From here on NCCL_MULTI_RANK_GPU_ENABLE=1 lets two ranks of a communicator have one GPU.
SHARES_A_GPU = 23000


def version() -> int:
    """What ncclGetVersion says."""
    number = ctypes.c_int()
    try:
        library = ctypes.CDLL(os.environ.get("XQKV_NCCL_LIBRARY", "libnccl.so.2"))
        status = library.ncclGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return 0
    return number.value if status == 0 else 0


def skipped(number: int) -> str:
    """Why two ranks cannot have one GPU, or nothing if they can."""
    if number == 0:
        return "SKIPPED: no NCCL"
    if number < SHARES_A_GPU:
        return f"SKIPPED: NCCL {number // 10000}.{number // 100 % 100} is older than 2.30"
    return ""


if __name__ == "__main__":
    found = version()
    print(f"export NCCL_VERSION_FOUND={found} NCCL_SHARED_GPU_SKIPPED='{skipped(found)}'")
