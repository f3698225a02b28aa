"""A Hugging Face folder."""

from __future__ import annotations

import ctypes
import json
import os
from typing import Any

from ._abi import xqkv_checkpoint, xqkv_spec
from ._library import call, initialised


class Checkpoint:
    """A folder with config.json and safetensors files; for models of no known family, with the names of its tensors."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        convert: bool = False,
        tensor_pattern: str | None = None,
        query_name: str | None = None,
        key_name: str | None = None,
        value_name: str | None = None,
    ) -> None:
        self.plain = initialised(xqkv_checkpoint)
        self.plain.convert = int(convert)
        self.plain.directory = os.fsencode(directory)
        names = {"tensor_pattern": tensor_pattern, "query_name": query_name, "key_name": key_name, "value_name": value_name}
        for field, name in names.items():
            setattr(self.plain, field, None if name is None else name.encode())

    def report(self, spec: xqkv_spec) -> dict[str, Any]:
        """Which tensors of a spec are there, missing or misshaped, and which beside them are unused."""
        arguments, needed = (ctypes.byref(self.plain), ctypes.byref(spec)), ctypes.c_int64()
        call("xqkv_checkpoint_report", *arguments, None, 0, ctypes.byref(needed))
        text = ctypes.create_string_buffer(needed.value)
        call("xqkv_checkpoint_report", *arguments, text, needed, ctypes.byref(needed))
        return dict(json.loads(text.value))
