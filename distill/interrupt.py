"""Ctrl-C and SIGTERM between two steps of training, never within one: a half-made step cannot be resumed from."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from emb.errors import Terminated

_RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], KeyboardInterrupt | None]]:
    """Yield a function that gives what to raise once Ctrl-C was pressed or SIGTERM came; the same again acts at once.

    Outside the main thread Python delivers no signals, and the answer stays None.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.getsignal(number) or signal.default_int_handler for number in _RAISED}
    if before[signal.SIGTERM] == signal.SIG_IGN:
        # Whoever had it ignored meant it; shells ignore Ctrl-C for whatever runs in the background.
        del before[signal.SIGTERM]

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, remember)
    try:
        yield lambda: _RAISED[signal.Signals(came[0])]() if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
