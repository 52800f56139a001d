"""Steadiness: deadlines, how long each stage took, and what is asked of the system, with a warning where refused."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from dagger_ros.contract import DaggerError
from dagger_ros.control import Deadlines

__all__ = ["Collector", "Stages", "Ticker", "apply_settings", "cores_of", "one_thread"]

_MLOCK_CURRENT_AND_FUTURE = 3  # sys/mman.h
_SET_TIMERSLACK, _SLACK_NS = 29, 1  # linux/prctl.h
# So many of the newest measurements of each stage are kept: those of a second at 1 kHz.
_KEPT = 1024


class Ticker:
    """Calls back at absolute deadlines on the clock that never jumps, or a little ahead for what is waited for.

    Args:
        period_ns: Control period.
        callback: Gets the time (monotonic, ns) and how many whole periods were missed just before.

    Attributes:
        kept: Somebody keeps its deadlines; only then is there a tick ahead of one.
        late_ns: How long after its deadline the last tick was.
    """

    def __init__(self, period_ns: int, callback: Callable[[int, int], None]) -> None:
        self._deadlines, self._callback = Deadlines(period_ns), callback
        self.kept, self.late_ns = False, 0

    def left_ns(self, now_ns: int) -> int:
        """How long until the next deadline; <= 0: now."""
        due_ns = self._deadlines.due_ns
        return 0 if due_ns is None else due_ns - now_ns

    def tick(self) -> None:
        """Calls back."""
        now_ns = time.monotonic_ns()
        self.late_ns = -self.left_ns(now_ns)
        self._callback(now_ns, self._deadlines.take(now_ns))

    def arrive(self, now_ns: int) -> None:
        """Something to decide on has come: calls back if there is a tick left for it; see `Deadlines.arrive`."""
        if self.kept and self._deadlines.arrive(now_ns):
            self.tick()


class Stages:
    """How long each stage of a tick took, over the last second.

    Args:
        names: Of the stages.
    """

    def __init__(self, *names: str) -> None:
        self._names = names
        self._took_ns = np.zeros((_KEPT, len(names)), np.int64)
        self._count = 1
        self.take()  # the first percentiles take numpy 30 ms, which no tick is to wait for

    def note(self, *took_ns: int) -> None:
        """Takes one time for each stage, ns."""
        self._took_ns[self._count % _KEPT] = took_ns
        self._count += 1

    def take(self) -> dict[str, str]:
        """Percentiles for people, by name, since the last call; empty: nothing was noted."""
        took_us = self._took_ns[: min(self._count, _KEPT)] * 1e-3
        self._count = 0
        if not len(took_us):
            return {}
        table = np.percentile(took_us, [50, 99, 100], axis=0).T
        return {
            f"{name} us": f"p50 {p50:.0f}, p99 {p99:.0f}, max {worst:.0f}"
            for name, (p50, p99, worst) in zip(self._names, table.tolist(), strict=True)
        }


class Collector:
    """Garbage is collected when there is time for it, instead of in the middle of a tick. What exists now is kept."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()
        gc.disable()

    @staticmethod
    def collect(*, idle: bool) -> None:
        """Collects: all of it while nobody drives, else only what was made since the last time."""
        gc.collect(2 if idle else 0)


def one_thread() -> None:
    """Products of small matrices are faster in one thread, and do not wait for others."""
    threadpool_limits(1)


def cores_of(text: str) -> set[int]:
    """Reads a list of cores such as `2` or `0,2-3`; empty: none is named.

    Raises:
        DaggerError: If it is something else.
    """
    cores: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise DaggerError(f"cpu_affinity: expected cores such as 2 or 0,2-3, got {text!r}")
        cores |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return cores


def apply_settings(*, priority: int, cores: set[int], lock_memory: bool) -> Sequence[str]:
    """Asks the system for all that makes a process steadier.

    Args:
        priority: Of SCHED_FIFO for this thread, from 1 to 99; the other threads of the process, which receive messages,
            get one less; 0: the scheduler stays as it is.
        cores: On which the process may run; empty: any.
        lock_memory: Nothing of the process is ever swapped out.

    Returns:
        In words, what was refused and what to do about it; the process goes on without.
    """
    _libc().prctl(_SET_TIMERSLACK, _SLACK_NS, 0, 0, 0)  # sleeps end when they should, not up to 50 us later
    refused = []
    if cores:
        try:
            for thread in _threads():
                os.sched_setaffinity(thread, cores)
        except OSError as error:
            present = ",".join(map(str, sorted(os.sched_getaffinity(0))))
            refused.append(f"cpu_affinity {sorted(cores)}: {error.strerror}; this process may run on {present}")
    if lock_memory and _libc().mlockall(_MLOCK_CURRENT_AND_FUTURE) != 0:
        reason = os.strerror(ctypes.get_errno())
        refused.append(f"lock_memory: {reason}; allow it with `ulimit -l unlimited` (memlock in limits.conf)")
    if priority:
        try:
            for thread in _threads():
                os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(max(1, priority - 1)))
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        except OSError as error:
            refused.append(
                f"realtime_priority {priority}: {error.strerror}; allow it with `ulimit -r {priority}` (rtprio in "
                "limits.conf) or the capability CAP_SYS_NICE"
            )
    return refused


def _threads() -> list[int]:
    """All of this process; one that has ended meanwhile is left out."""
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc/self/task")]
    return [0]


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)
