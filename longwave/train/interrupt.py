"""Ctrl-C that lets a step finish and cuts a score short: the first asks, the second insists."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType, TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class InterruptGuard:
    """While entered, the first SIGINT or SIGTERM only sets `requested`; a second one raises KeyboardInterrupt.

    Outside the main thread, where Python does not let signals be handled, it does nothing.

    Args:
        speaks: whether this process says what it does.
    """

    def __init__(self, *, speaks: bool = True) -> None:
        self.requested, self.speaks = False, speaks
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            if handler is not None:  # None: installed by C code, which Python cannot put back
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self.speaks:
            # os.write, for a handler may run in the middle of another write to stderr.
            os.write(2, b"\nstopping when this step is done and saved (again to stop at once)\n")


class StoppedError(Exception):
    """What was asked for is not finished, for the run is to stop; every process raises it at the same place."""


def unless(stopping: Callable[[], bool], things: Iterable[T]) -> Iterator[T]:
    """The things, as long as `stopping()` is False before each. Raises StoppedError."""
    for thing in things:
        if stopping():
            raise StoppedError
        yield thing
