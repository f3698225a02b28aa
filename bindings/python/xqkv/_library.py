"""The shared library: where it is, its functions with their prototypes, and handles that unmake themselves."""

from __future__ import annotations

import ctypes
import os
import weakref
from pathlib import Path
from typing import Any, TypeVar

from . import _abi
from .errors import of_status

T = TypeVar("T", bound=ctypes.Structure)


def _candidates() -> list[str]:
    """Where the library may be: the named place, beside this package, a checkout's build, the loader's own search."""
    here = Path(__file__).parent
    named = os.environ.get("XQKV_LIBRARY_PATH")
    built = here.parents[2] / "target" / "release" / "libxqkv.so"
    beside = [str(path) for path in (here / "libxqkv.so", built) if path.exists()]
    return [named] if named else [*beside, "libxqkv.so.0.1", "libxqkv.so"]


def _load() -> ctypes.CDLL:
    failures = []
    for name in _candidates():
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            failures.append(f"{name}: {error}")
    raise ImportError("libxqkv was not found; set XQKV_LIBRARY_PATH to it. Tried " + "; ".join(failures))


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, (returned, arguments) in _abi.PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returned, arguments
    if library.xqkv_version_abi() != _abi.XQKV_VERSION_ABI:
        raise ImportError(f"libxqkv has ABI {library.xqkv_version_abi()}, this package {_abi.XQKV_VERSION_ABI}")
    return library


LIBRARY = _declared(_load())


def call(name: str, *arguments: Any) -> None:
    """Calls a function that takes an error last, and raises what it answers."""
    error = _abi.xqkv_error()
    status = getattr(LIBRARY, name)(*arguments, ctypes.byref(error))
    if status != _abi.xqkv_status.OK:
        raise of_status(status, LIBRARY.xqkv_status_effect(status), error.message.decode(errors="replace"))


def initialised(kind: type[T]) -> T:
    """A plain struct as its _init function leaves it."""
    plain = kind()
    status = getattr(LIBRARY, f"{kind.__name__}_init")(ctypes.byref(plain), ctypes.sizeof(plain))
    if status != _abi.xqkv_status.OK:
        raise of_status(status, LIBRARY.xqkv_status_effect(status), f"{kind.__name__} differs from the library's")
    return plain


def handle_count() -> int:
    """How many handles are alive in this process."""
    return int(LIBRARY.xqkv_handle_count())


def version() -> str:
    """The library's version."""
    return str(LIBRARY.xqkv_version_string().decode())


class Handle:
    """An object of the library's; `close` unmakes it, and so do `with` and the garbage collector."""

    def __init__(self, handle: int, destroy: str) -> None:
        self._handle: int | None = handle
        self._finalizer = weakref.finalize(self, getattr(LIBRARY, destroy), handle, None)

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._handle

    def close(self) -> None:
        """Unmakes the handle; a second time does nothing."""
        self._finalizer()
        self._handle = None

    def _forget(self) -> None:
        """The library has unmade the handle itself."""
        self._finalizer.detach()
        self._handle = None

    def __enter__(self: H) -> H:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


H = TypeVar("H", bound=Handle)


def created(name: str, *arguments: Any) -> int:
    """Calls a function that writes a handle before the error."""
    handle = ctypes.c_void_p()
    call(name, *arguments, ctypes.byref(handle))
    return int(handle.value or 0)
