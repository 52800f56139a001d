"""Random streams of every message type, their messages, and what of them a contract selects, for hypothesis."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from conftest import contract_path
from dagger_ros.contract import Contract, load_contract
from dagger_ros.contract.schema import Stream
from dagger_ros.contract.types import MESSAGE_TYPES, FieldKind

__all__ = ["contracts", "messages", "stream_of", "streams"]

_JOINTS = ("a", "b1", "long_name_of_a_joint", "w", "x", "y", "z")
_LONGEST = 12


def _number(rng: np.random.Generator, type_: str) -> float:
    """Anything that the type can hold, NaN too."""
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, np.finfo(type_).max, np.finfo(type_).tiny]
    return float(rng.choice(special)) if rng.random() < 0.2 else float(np.dtype(type_).type(rng.normal(scale=1e3)))


def stream_of(type_: str, select: list[str], unit: str, topic: str = "t", *, privileged: bool = False) -> Stream:
    """A stream that selects these fields."""
    content = {"topic": topic, "type": type_, "select": select, "unit": unit, "frame": "base", "rate_hz": 10.0}
    return Stream.model_validate(content | {"max_age_s": 0.2, "resolution": 0.1, "privileged": privileged})


@st.composite
def streams(draw: st.DrawFn, type_: str | None = None, topic: str = "t", privileged: bool = False) -> Stream:
    """A stream of one type, or of any, that selects some of its fields in any order."""
    type_ = type_ or draw(st.sampled_from(sorted(MESSAGE_TYPES)))
    about = MESSAGE_TYPES[type_]
    name, units = draw(st.sampled_from(sorted(about.fields.items())))
    if about.kind is FieldKind.ATTRIBUTE:
        same_unit = sorted(path for path, of in about.fields.items() if of == units)
        select = draw(st.lists(st.sampled_from(same_unit), min_size=1, max_size=4, unique=True))
    elif about.kind is FieldKind.ARRAY:
        ranges = st.tuples(st.integers(0, _LONGEST), st.integers(0, _LONGEST)).filter(lambda r: r[0] != r[1])
        select = [f"{name}[{min(r)}:{max(r)}]" for r in draw(st.lists(ranges, min_size=1, max_size=3))]
    else:
        joints = draw(st.lists(st.sampled_from(_JOINTS), min_size=1, unique=True))
        select = [f"{name}.{joint}" for joint in joints]
    return stream_of(type_, select, units[0], topic, privileged=privileged)


def messages(type_: str, seed: int, *, whole: bool) -> Any:
    """A message of a type with random contents.

    Args:
        type_: One of `MESSAGE_TYPES`.
        seed: Of everything random in it.
        whole: It has all that a stream of `streams` may select; False: perhaps.
    """
    from dagger_ros.nodes.base import new_message

    rng = np.random.default_rng(seed)
    message = new_message(type_, period_ns=1)
    about = MESSAGE_TYPES[type_]
    if about.has_header:
        message.header.frame_id = "x" * int(rng.integers(0, 9))
        message.header.stamp.sec, message.header.stamp.nanosec = int(rng.integers(0, 2**31)), int(rng.integers(10**9))
    if about.kind is FieldKind.ATTRIBUTE:
        for path in about.fields:
            *parents, name = path.split(".")
            holder = message
            for parent in parents:
                holder = getattr(holder, parent)
            setattr(holder, name, _number(rng, "f8"))
        return message
    holder = message.points[0] if about.kind is FieldKind.TRAJECTORY else message
    size = _LONGEST if whole else int(rng.integers(0, _LONGEST + 1))
    if about.kind is not FieldKind.ARRAY:
        names = rng.permutation(_JOINTS).tolist()
        names = names if whole else names[: rng.integers(0, len(names) + 1)]
        setattr(message, "joint_names" if about.kind is FieldKind.TRAJECTORY else "name", names)
        size = len(names)
    for name in about.fields:
        count = size if whole or rng.random() < 0.8 else int(rng.integers(0, size + 1))
        setattr(holder, name, [_number(rng, about.wire_dtype) for _ in range(count)])
    return message


@st.composite
def contracts(draw: st.DrawFn) -> Contract:
    """The peg's contract with other streams."""
    content = load_contract(contract_path("peg")).model_dump(mode="json", by_alias=True)
    hidden = draw(st.lists(st.booleans(), max_size=4))
    made = [draw(streams(topic=f"t{i}", privileged=privileged)) for i, privileged in enumerate((False, *hidden))]
    content["streams"] = {f"s{i}": s.model_dump(mode="json", by_alias=True) for i, s in enumerate(made)}
    content["action"] |= {"measured": None, "workspace": []}
    content["expert"] = content["simulation"] = None
    return Contract.model_validate(content)
