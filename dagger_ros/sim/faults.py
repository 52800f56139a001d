"""Faults as data, and the injector that puts them between the nodes.

A fault says what happens to the messages of one topic, when and for how long. The injector takes each message and
gives the messages that are passed on instead. It touches messages only through their attributes, so the same faults
are made in one process and in a running graph (`dagger_ros.nodes.fault_injector`).
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dagger_ros.contract import ContractError, DaggerError, stamp_from_ns, stamp_ns
from dagger_ros.contract.errors import Problem
from dagger_ros.contract.load import problems_of

__all__ = ["Fault", "FaultInjector", "FaultKind", "lacks", "load_faults", "set_numbers"]


class FaultKind(str, enum.Enum):
    """What happens to a message. `value` means what stands behind the colon."""

    DROP = "drop"
    """It is lost."""
    LOSE = "lose"
    """One of so many is lost: value, a whole number."""
    DELAY = "delay"
    """It comes later: value, s."""
    FREEZE = "freeze"
    """The first message of the fault comes again in its place, as from a device that died behind its driver."""
    DUPLICATE = "duplicate"
    """It comes twice."""
    SWAP = "swap"
    """It comes after the next one."""
    BURST = "burst"
    """So many come in its place, numbered as if all were new: value, a whole number."""
    SHIFT_STAMP = "shift_stamp"
    """Its stamp (or the clock) is off: value, s."""
    NOT_A_NUMBER = "not_a_number"
    """A number of it (of its first array, if it has one) is NaN."""
    INFINITE = "infinite"
    """The same number is infinite."""
    SCALE = "scale"
    """Every number is multiplied, as by a wrong unit: value."""
    ADD = "add"
    """Something is added to every number: value."""
    SHORTEN = "shorten"
    """Its first array lacks the last number."""
    RENAME = "rename"
    """Its first joint has another name."""
    REORDER = "reorder"
    """Its joints come in the opposite order, names and values alike: nothing that may matter."""
    CONTRACT = "contract"
    """It names another contract."""
    POLICY = "policy"
    """It names other weights."""
    TAKEOVER = "takeover"
    """Its deadman is pressed (value 1) or not (value 0), whatever the hand does."""
    FLAP = "flap"
    """Its deadman is pressed in every other message."""
    SAY = "say"
    """A message that nobody sent is sent once a tick: a second writer, a pressed e-stop. Value: its numbers."""


class Fault(BaseModel):
    """One fault.

    Args:
        name: Tells it from the others; the node has a service of this name that switches it.
        kind: What happens.
        topic: To whose messages, as the contract or the graph names the topic.
        start_s: When it begins, from the start of the injector; None: when it is switched on.
        duration_s: How long it lasts.
        value: See `FaultKind`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: FaultKind
    topic: Annotated[str, Field(min_length=1)]
    start_s: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    duration_s: Annotated[float, Field(strict=True, gt=0)] = float("inf")
    value: Annotated[float, Field(strict=True, allow_inf_nan=False)] = 1.0


class _Faults(BaseModel):
    model_config = ConfigDict(extra="forbid")

    faults: Annotated[tuple[Fault, ...], Field(min_length=1)]


# What `value` must be where not every number will do, and in words.
_VALUES: dict[FaultKind, tuple[Callable[[float], bool], str]] = {
    FaultKind.LOSE: (lambda value: value >= 1 and value.is_integer(), "a whole number >= 1"),
    FaultKind.BURST: (lambda value: value >= 1 and value.is_integer(), "a whole number >= 1"),
    FaultKind.DELAY: (lambda value: value > 0, "a number of seconds > 0"),
    FaultKind.TAKEOVER: (lambda value: value in (0.0, 1.0), "1 (pressed) or 0"),
}


def load_faults(path: str | Path) -> tuple[Fault, ...]:
    """Reads a YAML file with a list `faults`.

    Raises:
        DaggerError: With everything that is wrong with it.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DaggerError(f"{path}: expected faults (YAML) here; {error}") from error
    try:
        faults = _Faults.model_validate(content).faults
    except ValidationError as error:
        raise ContractError(str(path), problems_of(error)) from error
    problems = [
        Problem(f"faults.{i}.value", f"{_VALUES[fault.kind][1]} for {fault.kind.value}", f"{fault.value:g}")
        for i, fault in enumerate(faults)
        if fault.kind in _VALUES and not _VALUES[fault.kind][0](fault.value)
    ]
    if problems:
        raise ContractError(str(path), problems)
    names = [fault.name for fault in faults]
    if len(set(names)) < len(names):
        raise DaggerError(f"{path}: expected each name once, got {', '.join(names)}")
    return faults


class FaultInjector:
    """Takes messages and gives what is passed on instead.

    Args:
        faults: What may happen.
        now_ns: Time of the start, on any clock that goes on by itself.
    """

    def __init__(self, faults: Sequence[Fault], now_ns: int) -> None:
        self._faults = {fault.name: fault for fault in faults}
        start_ns = {f.name: now_ns + round(f.start_s * 1e9) for f in faults if f.start_s is not None}
        self._start_ns: dict[str, int] = start_ns
        self._late: list[tuple[int, str, Any]] = []
        self._kept: dict[str, Any] = {}  # by fault: the message that is frozen, or waits for the next one
        self._count: dict[str, int] = {}
        self._extra: dict[str, int] = {}  # by topic: messages more than there were

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that a fault may happen to."""
        return tuple(dict.fromkeys(f.topic for f in self._faults.values()))

    def switch(self, name: str, *, on: bool, now_ns: int) -> None:
        """Begins or ends a fault now.

        Raises:
            KeyError: If there is no fault of this name.
        """
        fault = self._faults[name]
        self._start_ns.pop(name, None)
        if not on:
            kept = self._kept.pop(name, None)
            if kept is not None and fault.kind is FaultKind.SWAP:
                self._late.append((now_ns, fault.topic, kept))
            return
        self._start_ns[name] = now_ns
        self._count.pop(name, None)

    def active(self, now_ns: int) -> list[Fault]:
        """The faults that are happening."""
        return [
            self._faults[name]
            for name, start_ns in self._start_ns.items()
            if start_ns <= now_ns and now_ns - start_ns < self._faults[name].duration_s * 1e9
        ]

    def relay(self, topic: str, message: Any, now_ns: int) -> list[Any]:
        """What is passed on at once in place of a message; the message itself is not changed."""
        messages = [message]
        extra = self._extra.get(topic, 0)
        if extra:
            messages = [_edited(message, lambda m: _add_to_sequence(m, extra))]
        for fault in self.active(now_ns):
            if fault.topic == topic:
                messages = [out for m in messages for out in self._apply(fault, m, now_ns)]
        return messages

    def due(self, now_ns: int) -> list[tuple[str, Any]]:
        """Topics and messages that were held back and whose time has come."""
        ready = [(topic, message) for due_ns, topic, message in self._late if due_ns <= now_ns]
        self._late = [late for late in self._late if late[0] > now_ns]
        return ready

    def _apply(self, fault: Fault, message: Any, now_ns: int) -> list[Any]:
        kind, value = fault.kind, fault.value
        count = self._count[fault.name] = self._count.get(fault.name, -1) + 1
        if kind is FaultKind.DROP or (kind is FaultKind.LOSE and count % int(value) == 0):
            return []
        if kind is FaultKind.DELAY:
            self._late.append((now_ns + round(value * 1e9), fault.topic, message))
            return []
        if kind is FaultKind.FREEZE:
            return [self._kept.setdefault(fault.name, message)]
        if kind is FaultKind.DUPLICATE:
            return [message, message]
        if kind is FaultKind.SWAP:
            before = self._kept.pop(fault.name, None)
            if before is not None:
                return [message, before]
            self._kept[fault.name] = message
            return []
        if kind is FaultKind.BURST:
            extra = int(value) - 1
            self._extra[fault.topic] = self._extra.get(fault.topic, 0) + extra
            return [_edited(message, lambda m, i=i: _add_to_sequence(m, i)) for i in range(extra + 1)]  # type: ignore[misc]
        edit = _EDITS.get(kind)
        if edit is None:
            return [message]
        return [_edited(message, lambda m: edit(m, value, count))]


def lacks(kind: FaultKind, message: Any) -> str:
    """What a message would need for this to happen to it; empty if it can happen."""
    needed = _NEEDS.get(kind, ())
    return "" if not needed or any(hasattr(message, name) for name in needed) else " or ".join(needed)


def set_numbers(message: Any, number: float) -> None:
    """Every number of a message that nobody sent; a Bool is true unless the number is 0."""
    if isinstance(getattr(message, "data", None), bool):
        message.data = number != 0
    else:
        _change_all(message, lambda _old: number)


def _edited(message: Any, edit: Callable[[Any], None]) -> Any:
    message = copy.deepcopy(message)
    edit(message)
    return message


def _add_to_sequence(message: Any, extra: int) -> None:
    if hasattr(message, "sequence"):
        message.sequence += extra


def _fields(message: Any) -> Iterator[str]:
    names = message.get_fields_and_field_types() if hasattr(message, "get_fields_and_field_types") else vars(message)
    return (name for name in names if name != "header")


def _numbers(message: Any) -> Iterator[tuple[Any, str]]:
    """Every field with a floating point number or an array of them, as its holder and its name."""
    for name in _fields(message):
        value = getattr(message, name)
        if isinstance(value, float):
            yield message, name
        elif hasattr(value, "__len__") and not isinstance(value, (str, bytes)):
            if len(value) and isinstance(value[0], (float, np.floating)):
                yield message, name
        elif hasattr(value, "get_fields_and_field_types") or hasattr(value, "__dict__"):
            yield from _numbers(value)


def _arrays(message: Any) -> list[tuple[Any, str]]:
    return [(holder, name) for holder, name in _numbers(message) if not isinstance(getattr(holder, name), float)]


def _set_first(message: Any, number: float) -> None:
    """In its first array, or in its first field where it has none."""
    arrays = _arrays(message)
    for holder, name in arrays[:1]:
        getattr(holder, name)[0] = number
    if not arrays:
        for holder, name in list(_numbers(message))[:1]:
            setattr(holder, name, number)


def _change_all(message: Any, change: Callable[[float], float]) -> None:
    for holder, name in _numbers(message):
        value = getattr(holder, name)
        if isinstance(value, float):
            setattr(holder, name, change(value))
        else:
            for i in range(len(value)):
                value[i] = change(value[i])


def _shift_stamp(message: Any, value: float, _count: int) -> None:
    stamp = message.header.stamp if hasattr(message, "header") else message.clock
    stamp_from_ns(stamp, max(0, stamp_ns(stamp) + round(value * 1e9)))


def _shorten(message: Any, _value: float, _count: int) -> None:
    for holder, name in _arrays(message)[:1]:
        setattr(holder, name, getattr(holder, name)[:-1])


def _rename(message: Any, _value: float, _count: int) -> None:
    names = list(message.name)
    message.name = ["other", *names[1:]]


def _reorder(message: Any, _value: float, _count: int) -> None:
    message.name = list(message.name)[::-1]
    for holder, name in _numbers(message):
        setattr(holder, name, getattr(holder, name)[::-1])


def _set(**fields: Any) -> Callable[[Any, float, int], None]:
    def edit(message: Any, _value: float, _count: int) -> None:
        for name, value in fields.items():
            setattr(message, name, value)

    return edit


def _takeover(message: Any, value: float, _count: int) -> None:
    message.takeover = value != 0


def _flap(message: Any, _value: float, count: int) -> None:
    message.takeover = count % 2 == 0


# A kind of fault that changes a field happens only to messages that have one of these.
_NEEDS: dict[FaultKind, tuple[str, ...]] = {
    FaultKind.SHIFT_STAMP: ("header", "clock"),
    FaultKind.RENAME: ("name",),
    FaultKind.REORDER: ("name",),
    FaultKind.CONTRACT: ("contract_sha256",),
    FaultKind.POLICY: ("policy_sha256",),
    FaultKind.TAKEOVER: ("takeover",),
    FaultKind.FLAP: ("takeover",),
}
_EDITS: dict[FaultKind, Callable[[Any, float, int], None]] = {
    FaultKind.SHIFT_STAMP: _shift_stamp,
    FaultKind.NOT_A_NUMBER: lambda message, _value, _count: _set_first(message, float("nan")),
    FaultKind.INFINITE: lambda message, _value, _count: _set_first(message, float("inf")),
    FaultKind.SCALE: lambda message, value, _count: _change_all(message, lambda number: number * value),
    FaultKind.ADD: lambda message, value, _count: _change_all(message, lambda number: number + value),
    FaultKind.SHORTEN: _shorten,
    FaultKind.RENAME: _rename,
    FaultKind.REORDER: _reorder,
    FaultKind.CONTRACT: _set(contract_sha256="0" * 64),
    FaultKind.POLICY: _set(policy_sha256="0" * 64),
    FaultKind.TAKEOVER: _takeover,
    FaultKind.FLAP: _flap,
}
