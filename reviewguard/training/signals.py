"""Taking signals over for a while."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let a function handle Ctrl-C and SIGTERM; Python allows that in the main thread only, and elsewhere nothing changes.

    Args:
        handler: Called with the number of the signal, wherever the main thread is just then: it may hold any lock.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
