"""Reads a contract from YAML and finds everything that is wrong with it at once."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dagger_ros.contract.errors import ContractError, DaggerError, Problem
from dagger_ros.contract.fields import PATTERNS
from dagger_ros.contract.joystick import joystick_problems
from dagger_ros.contract.schema import (
    MOTION_LIMITS,
    Action,
    ActionDimension,
    Contract,
    Interface,
    Stop,
    Stream,
    Timing,
)
from dagger_ros.contract.types import IMAGE_TYPES, MESSAGE_TYPES, UNITS, FieldKind, parse_field

__all__ = ["COMMAND_TYPES", "STOP_OF", "load_contract", "load_yaml", "parse_contract", "problems_of"]

COMMAND_TYPES = (
    "std_msgs/msg/Float64MultiArray",
    "trajectory_msgs/msg/JointTrajectory",
    "sensor_msgs/msg/JointState",
    "geometry_msgs/msg/TwistStamped",
)
# What the nodes say to each other on; relative names, as in a contract.
GRAPH_TOPICS = frozenset(
    {
        "policy/action",
        "expert/action",
        "expert/act",
        "joy",
        "supervisor/decision",
        "supervisor/help",
        "supervisor/settings",
        "episode",
        "estop",
        "sim/tick",
    }
)
# Zero is a stop only where the action is a velocity: sent as a position it slams the arm to its zero pose.
STOP_OF = {
    Interface.VELOCITY: Stop.RAMP_TO_ZERO,
    Interface.POSITION: Stop.HOLD_POSITION,
    Interface.EFFORT: Stop.DELEGATE,
}
_INTERFACE_UNITS = {
    Interface.VELOCITY: ("m/s", "rad/s"),
    Interface.POSITION: ("m", "rad"),
    Interface.EFFORT: ("N", "N*m"),
}


class _UniqueKeyLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that stands twice in one mapping."""


def _mapping_without_twins(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.MarkedYAMLError(problem=f"key {key!r} is not text", problem_mark=key_node.start_mark)
        if key in seen:
            raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice", problem_mark=key_node.start_mark)
        seen.add(key)
    return dict(loader.construct_mapping(node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_twins)


def load_yaml(text: str) -> Any:
    """What a YAML text says; a key that stands twice is an error.

    Raises:
        yaml.YAMLError: If it is not YAML.
        ValueError: If a value is none, as the date 2001-99-99.
        RecursionError: If it is nested too deep.
    """
    return yaml.load(text, Loader=_UniqueKeyLoader)


def load_contract(path: str | Path) -> Contract:
    """Loads and checks one contract file.

    Args:
        path: A YAML file.

    Raises:
        ContractError: With every problem found: key, what was expected, what is there.
        DaggerError: If the file cannot be read.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DaggerError(f"{path}: expected a task contract (YAML) here; {reason}") from error
    return parse_contract(text, source=str(path))


def parse_contract(text: str, *, source: str) -> Contract:
    """Checks a contract given as text.

    Args:
        text: YAML.
        source: Where it came from, for the messages.

    Raises:
        ContractError: With every problem found.
    """
    try:
        content = load_yaml(text)
    except ValueError as error:
        raise ContractError(source, [Problem("(top)", "values that YAML knows", str(error))]) from error
    except RecursionError as error:
        raise ContractError(source, [Problem("(top)", "YAML that is not nested so deep", "too many levels")]) from error
    except yaml.YAMLError as error:
        raise ContractError(source, [Problem(_yaml_place(error), "valid YAML", _yaml_problem(error))]) from error
    if not isinstance(content, dict):
        found = "an empty file" if content is None else type(content).__name__
        raise ContractError(source, [Problem("(top)", "a mapping of keys", found)])
    try:
        contract = Contract.model_validate(content)
    except ValidationError as error:
        raise ContractError(source, [*problems_of(error), *_problems_of_parts(content)]) from error
    problems = list(_fit_problems(contract))
    if problems:
        raise ContractError(source, problems)
    return contract


def _yaml_place(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return "(top)" if mark is None else f"line {mark.line + 1}"


def _yaml_problem(error: yaml.YAMLError) -> str:
    return (getattr(error, "problem", None) or str(error)).removeprefix("found ")


# pydantic's error type -> what was expected, from the error's context.
_EXPECTED = {
    "missing": "this key",
    "extra_forbidden": "no such key here",
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than_equal": "a number <= {le:g}",
    "less_than": "a number < {lt:g}",
    "finite_number": "a finite number",
    "enum": "one of {expected}",
    "literal_error": "{expected}",
    "float_type": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text (quote it if it looks like a number)",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "{words}",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "too_short": "at least {min_length} entry",
    "union_tag_invalid": "kind: {expected_tags}",
    "union_tag_not_found": "a key 'kind'",
}


def problems_of(error: ValidationError) -> list[Problem]:
    """What pydantic found, in the words of this project."""
    problems = []
    for item in error.errors():
        if item["type"] == "too_short" and item["input"]:
            continue  # there are entries; what is wrong with them is said of each
        key = ".".join(str(part) for part in _file_place(item["loc"]))
        context = dict(item.get("ctx", {}))
        if "pattern" in context:
            context["words"] = PATTERNS.get(context["pattern"], f"text like {context['pattern']}")
        expected = _EXPECTED.get(item["type"], item["msg"]).format(**context)
        found = "nothing" if item["type"] == "missing" else _shown(item["input"])
        if item["type"] == "extra_forbidden" and error.title == Contract.__name__:
            valid = _siblings(item["loc"])
            alike = difflib.get_close_matches(str(item["loc"][-1]), valid, n=1)
            meant = f"did you mean {alike[0]}? " if alike else ""
            expected += f" ({meant}valid here: {', '.join(valid) or 'none'})"
        problems.append(Problem(key, expected, found))
    return problems


def _file_place(location: tuple[int | str, ...]) -> list[int | str]:
    """Where it stands in the file: pydantic puts the `kind` of a source or an actuation into the path."""
    return [
        part
        for i, part in enumerate(location)
        if (
            not (location[:2] == ("simulation", "sources") and i == 3)
            and not (location[:2] == ("simulation", "actuation") and i == 2)
        )
        or i == len(location) - 1
    ]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Valid keys beside a wrong one, found by walking the JSON schema of the contract."""
    schema = Contract.model_json_schema()
    node: Any = schema
    for part in location[:-1]:
        node = _resolved(schema, node)
        if "discriminator" in node and part in node["discriminator"]["mapping"]:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        elif isinstance(part, int):
            node = node.get("items", {})
        else:
            named: Any = next(iter(node.get("patternProperties", {}).values()), {})  # a mapping with free names
            node = node.get("properties", {}).get(part, named)
    return list(_resolved(schema, node).get("properties", {}))


def _resolved(schema: Any, node: Any) -> Any:
    for option in node.get("anyOf", []):
        if "$ref" in option:
            node = option
    if "$ref" in node:
        return schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _problems_of_parts(content: dict[Any, Any]) -> Iterator[Problem]:
    """How things fit together within those parts of a broken contract that are whole by themselves."""
    streams = content.get("streams")
    for name, stream in streams.items() if isinstance(streams, dict) else ():
        with contextlib.suppress(ValidationError):
            yield from _stream_problems(f"streams.{name}", Stream.model_validate(stream))
    with contextlib.suppress(ValidationError):
        yield from _action_problems(Action.model_validate(content.get("action")))
    with contextlib.suppress(ValidationError):
        yield from _timing_problems(Timing.model_validate(content.get("timing")))


def _fit_problems(contract: Contract) -> Iterator[Problem]:
    for name, stream in contract.streams.items():
        yield from _stream_problems(f"streams.{name}", stream)
    yield from _topic_problems(contract)
    yield from _action_problems(contract.action)
    yield from _measured_problems(contract, contract.action)
    yield from _workspace_problems(contract)
    yield from _reach_problems(contract)
    yield from _timing_problems(contract.timing)
    if contract.task.horizon_s < 1 / contract.timing.control_rate_hz:
        period = f"{1 / contract.timing.control_rate_hz:g}"
        yield Problem("task.horizon_s", f"at least the control period of {period} s", f"{contract.task.horizon_s:g}")
    for name, camera in contract.cameras.items():
        if name in contract.streams:
            yield Problem(f"cameras.{name}", "a name that no stream has", f"{name} twice")
        if camera.type not in IMAGE_TYPES:
            yield Problem(f"cameras.{name}.type", f"one of {', '.join(IMAGE_TYPES)}", camera.type)
    if all(s.privileged for s in contract.streams.values()):
        yield Problem("streams", "at least one stream that is not privileged", "only privileged ones")
    total = contract.splits.train + contract.splits.validation + contract.splits.stress
    if abs(total - 1) > 1e-9 or contract.splits.train == 0:
        yield Problem("splits", "shares that add up to 1, with train above 0", f"a sum of {total:g}")
    if contract.expert is not None:
        yield from joystick_problems("expert.joystick", contract.expert.joystick, contract)
    elif contract.operator.source == "joystick":
        yield Problem("expert.joystick", "what the axes and buttons do, since operator.source is joystick", "nothing")
    yield from _simulation_problems(contract)


def _stream_problems(key: str, stream: Stream) -> Iterator[Problem]:
    if stream.type not in MESSAGE_TYPES:
        yield Problem(f"{key}.type", f"one of {', '.join(MESSAGE_TYPES)}", stream.type)
        return
    places = [f"{key}.select.{i}" for i in range(len(stream.select))]
    yield from _select_problems(places, stream.type, stream.select, [stream.unit] * len(stream.select))
    if stream.unit not in UNITS:
        yield Problem(f"{key}.unit", f"one of {', '.join(UNITS)}", stream.unit)
    if stream.max_age_s < 1 / stream.rate_hz:
        yield Problem(
            f"{key}.max_age_s",
            f"at least the stream's period of {1 / stream.rate_hz:g} s, or it is always stale",
            f"{stream.max_age_s:g}",
        )


def _select_problems(
    places: Sequence[str], type_: str, select: Sequence[str], units: Sequence[str], *, one_each: bool = False
) -> Iterator[Problem]:
    """What is wrong with selected fields; `places` and `units` are those of each, `one_each`: no ranges."""
    message = MESSAGE_TYPES[type_]
    quantities = {s.partition(".")[0] for s in select}
    if message.kind in (FieldKind.JOINT, FieldKind.TRAJECTORY) and len(quantities) > 1:
        yield Problem(places[0], "one quantity (a stream for each)", ", ".join(sorted(quantities)))
    taken: set[str] = set()
    for place, text, unit in zip(places, select, units, strict=True):
        try:
            field, numbers = _field(message.kind, text)
        except ValueError as error:
            yield Problem(place, f"a field of {type_} such as {message.example} ({error})", text)
            continue
        if one_each and len(numbers) > 1:
            yield Problem(place, f"one number, as in {numbers[0]}", text)
        elif not taken.isdisjoint(numbers):
            yield Problem(place, "each field once", text)
        taken.update(numbers)
        if field not in message.fields:
            yield Problem(
                place, f"a field of {type_} such as {message.example} (it has {', '.join(message.fields)})", text
            )
        elif unit in UNITS and unit not in message.fields[field]:
            yield Problem(f"unit of {place}", f"{' or '.join(message.fields[field])} for {text}", unit)


def _field(kind: FieldKind, text: str) -> tuple[str, Sequence[str]]:
    """The field that a selection is of, and each number of it."""
    if kind is FieldKind.ARRAY:
        field = parse_field(text)
        return field.name, [f"{field.name}[{i}]" for i in range(field.start, field.stop)]
    if kind is FieldKind.ATTRIBUTE:
        return text, [text]
    quantity, dot, joint = text.partition(".")
    if not dot or not joint:
        raise ValueError("a quantity, a dot and a joint name")
    return quantity, [text]


def _topic_problems(contract: Contract) -> Iterator[Problem]:
    first: dict[str, tuple[str, Stream]] = {}
    for name, stream in contract.streams.items():
        other_name, other = first.setdefault(stream.topic, (name, stream))
        for field in ("type", "frame", "rate_hz", "max_age_s"):
            mine, theirs = getattr(stream, field), getattr(other, field)
            if mine != theirs:
                yield Problem(f"streams.{name}.{field}", f"{theirs} as in {other_name}, on the same topic", str(mine))
    observed = [*contract.topics, *(c.topic for c in contract.cameras.values())]
    if contract.action.topic in observed:
        yield Problem("action.topic", "a topic of its own: the supervisor is its only writer", contract.action.topic)
    for topic in sorted({t for t in observed if observed.count(t) > 1}):
        yield Problem("cameras", "a topic for each camera", topic)
    for topic in sorted(GRAPH_TOPICS & {contract.action.topic, *observed}):
        yield Problem("topics", "none of the names that the graph uses for itself", topic)


def _action_problems(action: Action) -> Iterator[Problem]:
    if action.type not in COMMAND_TYPES:
        yield Problem("action.type", f"one of {', '.join(COMMAND_TYPES)}", action.type)
    else:
        places = [f"action.dimensions.{i}.select" for i in range(len(action.select))]
        units = [d.unit for d in action.dimensions_]
        yield from _select_problems(places, action.type, action.select, units, one_each=True)
    for name in sorted({n for n in action.dimensions if action.dimensions.count(n) > 1}):
        yield Problem("action.dimensions", "each name once", name)
    if action.stop is not STOP_OF[action.interface]:
        expected = f"{STOP_OF[action.interface].value}, the stop of a {action.interface.value} interface"
        yield Problem("action.stop", expected, action.stop.value)
    for i, d in enumerate(action.dimensions_):
        key = f"action.dimensions.{i} ({d.name})"
        if not d.lower < d.upper:
            yield Problem(key, "lower < upper", f"{d.lower:g} and {d.upper:g}")
        elif action.interface is not Interface.POSITION and not d.lower <= 0 <= d.upper:
            yield Problem(key, "bounds that hold 0, which is the stop", f"{d.lower:g} to {d.upper:g}")
        if d.unit not in _INTERFACE_UNITS[action.interface]:
            expected = f"{' or '.join(_INTERFACE_UNITS[action.interface])} for a {action.interface.value} interface"
            yield Problem(f"{key}.unit", expected, d.unit)
        yield from _limit_problems(key, action, d)


def _limit_problems(key: str, action: Action, dimension: ActionDimension) -> Iterator[Problem]:
    """Limits that the interface needs and that are not there, or that would limit nothing."""
    needed, optional = MOTION_LIMITS[action.interface]
    given = dimension.limits()
    if action.measured is not None:
        needed = (*needed, "tracking_limit")
    for name in needed:
        if name not in given:
            yield Problem(f"{key}.{name}", f"this key: a {action.interface.value} interface needs it", "nothing")
    valid = (*needed, *optional, "jump_limit")
    for name in given:
        if name not in valid:
            why = "without 'measured' there is nothing to compare with" if name == "tracking_limit" else "no such limit"
            expected = f"one of {', '.join(valid)} for a {action.interface.value} interface ({why})"
            yield Problem(f"{key}.{name}", expected, name)


def _measured_problems(contract: Contract, action: Action) -> Iterator[Problem]:
    if action.measured is None:
        if action.interface is Interface.POSITION:
            yield Problem("action.measured", "the stream of measured positions that a hold starts from", "nothing")
        return
    yield from _guard_problems("action.measured", contract, action.measured)
    stream = contract.streams.get(action.measured)
    if stream is None or any(_stream_problems("", stream)):
        return
    if len(stream.dimensions) != len(action.dimensions_):
        found = f"{len(stream.dimensions)} in {action.measured}"
        yield Problem("action.measured", f"{len(action.dimensions_)} values, as the action has", found)
    for d in action.dimensions_:
        if d.unit != stream.unit:
            expected = f"a stream in {d.unit}, the unit of {d.name}"
            yield Problem("action.measured", expected, f"{action.measured} in {stream.unit}")
            return


def _workspace_problems(contract: Contract) -> Iterator[Problem]:
    for i, box in enumerate(contract.action.workspace):
        key = f"action.workspace.{i}"
        yield from _guard_problems(f"{key}.stream", contract, box.stream)
        stream = contract.streams.get(box.stream)
        if stream is None or any(_stream_problems("", stream)):
            continue
        for name, values in (("lower", box.lower), ("upper", box.upper)):
            if len(values) != len(stream.dimensions):
                expected = f"{len(stream.dimensions)} values, as {box.stream} has"
                yield Problem(f"{key}.{name}", expected, str(len(values)))
        for j, (lower, upper) in enumerate(zip(box.lower, box.upper, strict=False)):
            if not lower < upper:
                yield Problem(f"{key}, value {j}", "lower < upper", f"{lower:g} and {upper:g}")


def _guard_problems(key: str, contract: Contract, name: str) -> Iterator[Problem]:
    """A stream that the supervisor checks against must be one whose freshness it checks."""
    stream = contract.streams.get(name)
    if stream is None:
        yield Problem(key, f"one of {', '.join(contract.streams)}", name)
    elif stream.privileged:
        yield Problem(key, "a stream that is not privileged: on the robot that one is not there", name)


def _reach_problems(contract: Contract) -> Iterator[Problem]:
    """Limits in `unit` must allow what the limits in `unit` per second allow within one period."""
    period_s = 1 / contract.timing.control_rate_hz
    action = contract.action
    for i, d in enumerate(action.dimensions_):
        key = f"action.dimensions.{i} ({d.name})"
        speed = d.velocity_limit if action.interface is Interface.POSITION else d.acceleration_limit or d.rate_limit
        step = min((speed or 0.0) * period_s, d.upper - d.lower)
        for name in ("jump_limit", "tracking_limit"):
            limit = d.limits().get(name)
            if limit is not None and limit < step:
                yield Problem(f"{key}.{name}", f"at least what one period allows, {step:g}", f"{limit:g}")
    if action.handover.longest_s < period_s:
        expected = f"at least the control period of {period_s:g} s"
        yield Problem("action.handover.longest_s", expected, f"{action.handover.longest_s:g}")


def _timing_problems(timing: Timing) -> Iterator[Problem]:
    period = 1 / timing.control_rate_hz
    for field in ("policy_max_age_s", "expert_max_age_s", "driver_timeout_s", "help_answer_s", "estop_max_age_s"):
        if (getattr(timing, field) or period) < period:
            yield Problem(
                f"timing.{field}", f"at least the control period of {period:g} s", f"{getattr(timing, field):g}"
            )
    if timing.latency_budget_s > period:
        yield Problem(
            "timing.latency_budget_s", f"at most the control period of {period:g} s", f"{timing.latency_budget_s:g}"
        )


def _simulation_problems(contract: Contract) -> Iterator[Problem]:
    simulation = contract.simulation
    if simulation is None:
        return
    tables: dict[str, tuple[Mapping[str, object], Collection[str]]] = {
        "sources": (simulation.sources, contract.streams),
        "observation_noise": (simulation.observation_noise, contract.streams),
        "actuator_noise": (simulation.actuator_noise, contract.action.dimensions),
    }
    for table, (given, valid) in tables.items():
        for name in given:
            if name not in valid:
                yield Problem(f"simulation.{table}.{name}", f"one of {', '.join(valid)}", name)
    for name in contract.streams:
        if name not in simulation.sources:
            yield Problem(f"simulation.sources.{name}", "where the model gives this stream", "nothing")
