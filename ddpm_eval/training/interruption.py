"""SIGINT and SIGTERM while a run trains: noted, so that a checkpoint is written before the process ends."""

import signal
import threading
from types import FrameType
from typing import Self

from ddpm_eval.runtime import Runtime

NOTED = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Notes the first SIGINT or SIGTERM while its block runs, and lets the second one act at once.

    Python lets only the main thread have handlers: in another one nothing is noted. A signal that the process
    ignores stays ignored.

    Attributes:
        received: the signal that this process has received, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._previous: dict[signal.Signals, signal.Handlers | object] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in NOTED:
                handler = signal.getsignal(number)
                if handler is not None and handler != signal.SIG_IGN:
                    self._previous[number] = handler
                    signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous handlers."""
        self._restore()

    def agreed(self, runtime: Runtime) -> signal.Signals | None:
        """Return the signal that any process has received, None if none has; all must call this."""
        if not runtime.any_process(self.received is not None):
            return None
        return signal.SIGINT if runtime.any_process(self.received == signal.SIGINT) else signal.SIGTERM

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            signal.signal(number, handler)  # type: ignore[arg-type] # it is what getsignal returned


def end(number: signal.Signals) -> None:
    """End the program as the signal asks, after the work that is under way has been cleaned up.

    Raises:
        KeyboardInterrupt: for SIGINT.
        SystemExit: for SIGTERM, with the exit code by which shells know it, 143.
    """
    if number == signal.SIGINT:
        raise KeyboardInterrupt("training stopped by SIGINT")
    raise SystemExit(128 + number)
