"""Statuses as exceptions."""

from ._abi import xqkv_effect, xqkv_status


class XqkvError(Exception):
    """A call's status with its message; `effect` says what the call left behind."""

    def __init__(self, status: int, effect: int, message: str) -> None:
        super().__init__(message)
        self.status = xqkv_status(status)
        self.effect = xqkv_effect(effect)
        self.message = message

    def __str__(self) -> str:
        return f"{self.status.name}: {self.message}"


class InvalidArgument(XqkvError, ValueError):
    """A status of 1xx: the arguments."""


class NotReady(XqkvError):
    """Weights that the call needs were not loaded."""


class NotSupported(XqkvError, NotImplementedError):
    """A status of 3xx: not in this version, build or backend."""


class CheckpointError(XqkvError, OSError):
    """A status of 5xx: a checkpoint's files."""


def of_status(status: int, effect: int, message: str) -> XqkvError:
    """The exception for a status."""
    if status == xqkv_status.NOT_READY:
        return NotReady(status, effect, message)
    kinds: dict[int, type[XqkvError]] = {1: InvalidArgument, 3: NotSupported, 5: CheckpointError}
    return kinds.get(status // 100, XqkvError)(status, effect, message)
