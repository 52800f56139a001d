"""The verb that decides recorded episodes again: `replay`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagger_ros.cli.tables import tables
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import (
    Contract,
    DaggerError,
    Intent,
    InterventionReason,
    Label,
    Mode,
    RowLayout,
    Scores,
    load_contract,
)
from dagger_ros.supervisor import ABOUT, Event, GateSettings, Limits, Reason

if TYPE_CHECKING:
    from dagger_ros.control import Replayed
    from dagger_ros.dataset.about import BagAbout

__all__ = ["add_verbs"]

# Of the bounds' range: two proposals that are further apart do something else.
_APART = 0.1
_CODES: dict[str, Any] = {
    "mode": Mode,
    "label_source": Label,
    "intervention_reason": InterventionReason,
    "expert_reason": InterventionReason,
}


def add_verbs(verbs: Verbs) -> None:
    """Adds it to the command line."""
    parser = verbs.add_parser(
        "replay",
        help="decide recorded episodes again, and show what differs",
        description="Decides every tick of recorded episodes again, by the settings in their bags, and compares. Exits "
        "with 0 where every tick is as it was recorded, with 1 where one is not, with 2 for what is wrong; with "
        "--expert, which decides nothing, with 0.",
    )
    parser.add_argument("bag", type=Path, help="rosbag2 folder, or that of an episode, a round or a run")
    parser.add_argument("--contract", type=Path, help="decide under this contract, with other limits")
    others = parser.add_mutually_exclusive_group()
    others.add_argument("--policy", type=Path, help="with what this checkpoint proposes for the recorded observations")
    others.add_argument(
        "--expert", action="store_true", help="label again by the scripted expert of the contract's simulated task"
    )
    parser.add_argument("--out", type=Path, help="with --expert: folder of a round, for the episodes with these labels")
    parser.set_defaults(run=_replay)


def _replay(options: argparse.Namespace) -> None:
    from dagger_ros.dataset.about import find_bags

    if options.out and not options.expert:
        raise DaggerError("out: expected only with --expert, whose labels are written")
    if options.expert and options.contract:
        raise DaggerError("contract: expected only without --expert, which decides nothing")
    bags = find_bags(options.bag)
    if options.expert:
        _label(bags, options.out)
        return
    other = load_contract(options.contract) if options.contract else None
    replays = [_decide(bag, options, other, alone=len(bags) == 1) for bag in bags]
    equal = sum(not replayed.differs.any() for replayed in replays)
    if len(bags) > 1:
        print(f"{equal} of {len(bags)} episodes are decided as they were recorded")
    if equal < len(bags):
        raise SystemExit(1)


def _decide(bag: Path, options: argparse.Namespace, other: Contract | None, *, alone: bool) -> Replayed:
    """Decides one episode again and says what came of it."""
    from dagger_ros.control import Replayed, propose_again, replay
    from dagger_ros.dataset.about import read_decided
    from dagger_ros.policy import load_checkpoint

    about, rows = read_decided(bag)
    if not about.decided:
        raise DaggerError(
            f"{bag}: expected a bag whose ticks a supervisor decided; this one was imported or labelled anew"
        )
    contract = other or about.contract
    _check_same_rows(bag, about.contract, contract)
    (settings, note), inputs, heading = _settings_of(about), rows, f"{bag}:"
    if other is not None:
        heading += f" under {options.contract}:"
    if options.policy:
        checkpoint = load_checkpoint(options.policy, contract)
        inputs = propose_again(rows, RowLayout(contract), checkpoint)
        sha256 = checkpoint[0].weights_sha256
        settings = replace(settings, policy_sha256=sha256 if settings.policy_sha256 else "")
        drove = ", ".join(sorted({name.decode() for name in rows["policy"]} - {""})) or "no policy"
        heading += f" {checkpoint[0].name} on the observations of {drove} (the robot did not follow it):"
    # What a rule asks for help by stands in each row.
    gate = settings.make_gate(contract, Limits(back_ticks=settings.back_ticks))
    replayed = Replayed(rows, replay(inputs, gate))
    verdict = _verdict(replayed)
    if options.policy and replayed.differs.any():  # in everything that the name of a policy is of
        verdict = f"{len(rows)} ticks, {int((~replayed.differs).sum())} equal"
        verdict += "" if alone else f"; {_parting(replayed, contract)}"
    print(f"{heading} {verdict}{note}", flush=True)
    if alone and replayed.differs.any():
        _show_first(replayed, contract)
    if alone and (options.policy or other is not None):
        _show_actions(replayed, contract, proposals=bool(options.policy))
        _show_ticks(replayed)
    if alone and options.policy:
        _show_scores(replayed)
    return replayed


def _settings_of(about: BagAbout) -> tuple[GateSettings, str]:
    """What the supervisor decided by; where the bag does not say it, the defaults, and words about that."""
    if about.settings is not None:
        return about.settings, ""
    # `dagger-ros run` takes contracts whose operator is a script, and arms by itself.
    settings = GateSettings(about.rule, about.round, auto_arm=about.contract.operator.source == "scripted")
    armed = "by itself" if settings.auto_arm else "by a person"
    return settings, (
        f" [no supervisor/settings in this bag of an older version: defaults of rule {about.rule}, armed {armed}]"
    )


def _check_same_rows(bag: Path, recorded: Contract, other: Contract) -> None:
    there, here = (RowLayout(contract).meaning() for contract in (recorded, other))
    if list(there.items()) == list(here.items()):
        return
    lines = [
        f"  {key}: expected {there.get(key, 'none')}; found {here.get(key, 'none')}"
        for key in (there | here)
        if there.get(key) != here.get(key)
    ]
    what = "the streams and the action of the contract that it was recorded under"
    raise DaggerError("\n".join([f"{bag}: expected {what} ({recorded.name}), in their order", *lines]))


def _verdict(replayed: Replayed) -> str:
    ticks, different = len(replayed.recorded), int(replayed.differs.sum())
    if not different:
        return f"{ticks} ticks, all equal"
    first = int(replayed.differs.argmax())
    fields = ", ".join(name for name, found in replayed.differing.items() if found[first])
    return f"{ticks} ticks, {ticks - different} equal; the first that differs is {_place(replayed, first)}: {fields}"


def _place(replayed: Replayed, tick: int) -> str:
    times_ns = replayed.recorded["time_ns"]
    return f"tick {tick} ({(int(times_ns[tick]) - int(times_ns[0])) * 1e-9:.2f} s)"


def _show_first(replayed: Replayed, contract: Contract) -> None:
    first = int(replayed.differs.argmax())
    rows = [
        (name, *_compared(name, replayed.recorded[first][name], replayed.again[first][name], contract))
        for name, found in replayed.differing.items()
        if found[first]
    ]
    table = tables()
    table(f"the first that differs, {_place(replayed, first)}", "field, recorded, replayed", rows)
    counts = [(name, int(found.sum())) for name, found in replayed.differing.items()]
    table("ticks that differ", "field, ticks", counts)


def _compared(name: str, recorded: Any, again: Any, contract: Contract) -> tuple[str, str]:
    """Two values of a field in words; of a vector the numbers that differ."""
    if np.ndim(recorded) == 0:
        if isinstance(recorded, np.floating):
            return _numbers(float(recorded), float(again))
        return _words(name, recorded), _words(name, again)
    parts = [(name, "") for name in Scores._fields]
    if not name.endswith("_limits"):
        parts = [(d.name, f" {d.unit}") for d in contract.action.dimensions_]
    pairs = [
        [f"{part} {text}{unit}" for text in _numbers(*values)]
        for (part, unit), *values in zip(parts, recorded.tolist(), again.tolist(), strict=True)
        if values[0] != values[1] and not np.isnan(values).all()
    ]
    return ", ".join(pair[0] for pair in pairs), ", ".join(pair[1] for pair in pairs)


def _numbers(recorded: float, again: float) -> tuple[str, str]:
    """With so many digits that one sees which is which."""
    texts = f"{recorded:.4g}", f"{again:.4g}"
    return texts if texts[0] != texts[1] else (repr(recorded), repr(again))


def _words(name: str, value: Any) -> str:
    """One number or text of a row."""
    if name in _CODES:
        code = int(value)
        return _CODES[name](code).name if code in _CODES[name].__members__.values() else str(code)
    if name == "reasons":
        return Reason(int(value)).words() or "none"
    if name == "requests":
        return ", ".join(event.name.lower() for event in Event if event.bit & int(value)) or "none"
    if name == "expert_intent":
        return ", ".join(str(bit.name).lower() for bit in Intent if bit & int(value)) or "none"
    if name == "policy_sha256":
        value = value[:12]
    return value.decode("ascii", "replace") or "none" if isinstance(value, bytes) else str(value)


def _show_actions(replayed: Replayed, contract: Contract, *, proposals: bool) -> None:
    dimensions = contract.action.dimensions_
    table = tables()
    for name in ("policy_action", "executed_action") if proposals else ("executed_action",):
        gaps = replayed.gaps(name)
        known = gaps[np.isfinite(gaps).all(axis=1)]
        rms, largest = (
            (np.sqrt((known**2).mean(axis=0)), known.max(axis=0)) if len(known) else ([np.nan] * len(dimensions),) * 2
        )
        table(
            f"{name}: replayed less recorded, {len(known)} ticks",
            "dimension, unit, rms, largest, range of its bounds",
            [
                (d.name, d.unit, _short(a), _short(b), _short(d.upper - d.lower))
                for d, a, b in zip(dimensions, rms, largest, strict=True)
            ],
        )
    if proposals:
        print(f"  {_parting(replayed, contract)}")


def _parting(replayed: Replayed, contract: Contract) -> str:
    """Where the proposals do something else for the first time."""
    ranges = np.array([d.upper - d.lower for d in contract.action.dimensions_])
    apart = (replayed.gaps("policy_action") > _APART * ranges).any(axis=1)
    if not apart.any():
        return f"the proposals are nowhere further apart than {_APART:g} of the bounds' range"
    first = int(apart.argmax())
    name = "policy_action"
    recorded, again = _compared(name, replayed.recorded[first][name], replayed.again[first][name], contract)
    return (
        f"the proposals are further apart than {_APART:g} of the bounds' range in {int(apart.sum())} ticks, first at "
        f"{_place(replayed, first)}: {recorded}; replayed: {again}"
    )


def _show_ticks(replayed: Replayed) -> None:
    counts = [dict(_counts(rows)) for rows in (replayed.recorded, replayed.again)]
    said = {reason.name: about.words for reason, about in ABOUT.items()}
    rows = [
        (name, *(count[name] for count in counts), said.get(name, ""))
        for name in counts[0]
        if any(count[name] for count in counts)
    ]
    tables()("ticks by mode, label and reason", "what, recorded, replayed, in words", rows)


def _counts(rows: np.ndarray[Any, np.dtype[Any]]) -> Iterator[tuple[str, int]]:
    for mode in Mode:
        yield f"mode {mode.name}", int((rows["mode"] == mode).sum())
    for label in Label:
        yield f"label {label.name}", int((rows["label_source"] == label).sum())
    yield "asks for help", int(rows["help"].sum())
    for reason in Reason:
        yield str(reason.name), int(((rows["reasons"] & np.uint64(reason)) != 0).sum())


def _show_scores(replayed: Replayed) -> None:
    rows = []
    for name in Scores._fields:
        sides = [values[np.isfinite(values)] for values in (replayed.recorded[name], replayed.again[name])]
        for side, values in zip(("recorded", "replayed"), sides, strict=True):
            if len(values):
                rows.append((name, side, len(values), *(_short(v) for v in np.quantile(values, [0.5, 0.95, 1.0]))))
    if rows:
        tables()("scores", "score, of, ticks, median, 95 %, largest", rows)


def _label(bags: list[Path], out: Path | None) -> None:
    """Labels every episode by the scripted expert, says how far it is from the recorded one, and writes it."""
    from dagger_ros.control import Replayed, label_again
    from dagger_ros.dataset import finish_round
    from dagger_ros.dataset.about import read_decided
    from dagger_ros.dataset.relabel import write_relabelled
    from dagger_ros.sim.experts import make_labeller

    if out is not None and len({bag.parent.parent.parent for bag in bags}) > 1:
        raise DaggerError(f"out: expected the episodes of one round, got {len(bags)} of several; give one of rounds/")
    contract = None
    for bag in bags:
        about, rows = read_decided(bag)
        contract = about.contract
        labeller = make_labeller("scripted", contract)
        try:
            replayed = Replayed(rows, label_again(rows, RowLayout(contract), labeller))
        except DaggerError as error:
            raise DaggerError(f"{bag}: {error}") from error
        old, new = (int((r["label_source"] == Label.EXPERT).sum()) for r in (rows, replayed.again))
        print(f"{bag}: {len(rows)} ticks, {old} labels of an expert; {new} by {labeller.operator_id}", flush=True)
        if len(bags) == 1:
            _show_labels(replayed, contract)
        if out is not None:
            write_relabelled(bag, about, replayed.again, out, operator_id=labeller.operator_id)
    if out is not None and contract is not None:
        finished = finish_round(out, contract)
        print(f"{out}: {len(finished.episodes)} episodes, {finished.labels} labels")


def _show_labels(replayed: Replayed, contract: Contract) -> None:
    gaps = replayed.gaps("expert_action")
    known = np.isfinite(gaps).all(axis=1)
    labels = known & (replayed.recorded["label_source"] == Label.EXPERT)
    sides = [
        np.sqrt((gaps[ticks] ** 2).mean(axis=0)) if ticks.any() else np.full(gaps.shape[1], np.nan)
        for ticks in (known, labels)
    ]
    tables()(
        f"expert's action: new less recorded, {int(known.sum())} ticks, {int(labels.sum())} labels",
        "dimension, unit, rms, rms of labels",
        [(d.name, d.unit, _short(a), _short(b)) for d, a, b in zip(contract.action.dimensions_, *sides, strict=True)],
    )


def _short(number: float) -> float:
    """Three digits."""
    return float(f"{number:.3g}")
