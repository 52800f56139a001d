"""What a process of a pool does first, whatever it works on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

__all__ = ["start_worker"]


def start_worker() -> None:
    """Leaves Ctrl-C to who started the pool, which ends its workers, and ends with them if they are killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
