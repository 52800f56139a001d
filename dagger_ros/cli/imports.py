"""The verb about bags that were recorded elsewhere: `import`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dagger_ros.cli.tables import tables
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import Contract, DaggerError, Label, RowLayout, load_contract

if TYPE_CHECKING:
    from dagger_ros.dataset import ForeignBag, Reading

__all__ = ["add_verbs"]

_LONGEST_ID = 64  # of `operator_id` in a row


def add_verbs(verbs: Verbs) -> None:
    """Adds it to the command line."""
    parser = verbs.add_parser(
        "import", help="make demonstrations of bags that were recorded elsewhere: who gave the command is the expert"
    )
    parser.add_argument("bags", metavar="bag", type=Path, nargs="+", help="rosbag2 folder, or .mcap or .db3 file")
    parser.add_argument("--contract", type=Path, required=True, help="task contract, a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder of a run, new or not, or of its rounds/000")
    parser.add_argument("--operator-id", default="", help="who gave the command; stands on every frame")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--success", action="store_true", help="the contract's criterion held at the end of each bag")
    how.add_argument("--failure", metavar="LABEL", default="", help="failure label of the contract, of each bag")
    parser.add_argument(
        "--map", metavar="FROM:=TO", action="append", default=[], help="topic FROM of the bag is topic TO here"
    )
    parser.add_argument(
        "--action-topic",
        metavar="NAME[:TYPE]",
        help="topic of the command, if it is not the contract's; of type std_msgs/msg/Float64MultiArray too",
    )
    parser.add_argument(
        "--clock",
        choices=("header", "received"),
        default="header",
        help="received: the recorded time stands for header stamps of another clock (default: header)",
    )
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> None:
    from dagger_ros.dataset import ForeignBag, finish_round, import_bag, manifest_sha256, prepare_import
    from dagger_ros.nodes.share import message_definition

    contract = load_contract(options.contract)
    layout, reading = RowLayout(contract), _reading(options)
    reading.action(contract)
    if options.failure and options.failure not in contract.task.failure_labels:
        labels = ", ".join(contract.task.failure_labels)
        raise DaggerError(f"failure: expected one of {labels}, got {options.failure!r}")
    if len(options.operator_id) > _LONGEST_ID:
        raise DaggerError(f"operator-id: expected at most {_LONGEST_ID} characters, got {len(options.operator_id)}")
    if not options.operator_id.isascii():  # a frame holds no others
        raise DaggerError(f"operator-id: expected ASCII characters, got {options.operator_id!r}")
    folder = prepare_import(options.out, options.contract, contract, options.bags)
    was_finished = bool(manifest_sha256(folder))
    decision = "dagger_ros/msg/GateDecision"
    done: list[Path] = []
    try:
        for path in options.bags:
            bag = ForeignBag(path, layout, reading)
            info = import_bag(
                bag,
                folder,
                options.contract,
                contract,
                {decision: message_definition(decision)},
                operator_id=options.operator_id,
                success=options.success,
                failure=options.failure,
            )
            done.append(path)
            _show(bag, info.episode, contract)
    except DaggerError as error:
        raise DaggerError(f"{error}{_rest(options.bags, done)}") from error
    finally:
        if done:
            count = len(finish_round(folder, contract).episodes)
            trained = "; a policy that was trained on the manifest before does not know of all" if was_finished else ""
            print(f"{folder}: {count} episodes in its manifest{trained}")


def _reading(options: argparse.Namespace) -> Reading:
    from dagger_ros.dataset import Reading

    renamed = {}
    for text in options.map:
        name, sign, topic = text.partition(":=")
        if not (name and sign and topic):
            raise DaggerError(f"map: expected FROM:=TO, got {text!r}")
        renamed[name.strip("/")] = topic.strip("/")
    name, _, type_ = (options.action_topic or "").partition(":")
    return Reading(renamed, name.strip("/") or None, type_ or None, by_header=options.clock == "header")


def _rest(bags: Sequence[Path], done: Sequence[Path]) -> str:
    """What became of the other bags."""
    if len(bags) == 1:
        return ""
    names = [", ".join(map(str, part)) or "none" for part in (done, bags[len(done) :])]
    return f"\nimported: {names[0]}\nnot imported: {names[1]}"


def _show(bag: ForeignBag, episode: int, contract: Contract) -> None:
    """What was made of one bag."""
    rows, table = bag.rows, tables()
    labels = int((rows["label_source"] == Label.EXPERT).sum())
    why = ", ".join(f"{n} {reason}" for reason, n in bag.unlabelled.items())
    print(
        f"{bag.path}: episode {episode}, {sum(bag.counts.values())} messages, {len(rows)} ticks at "
        f"{contract.timing.control_rate_hz:g} Hz, {labels} labels; without one: {why or 'none'}"
    )
    table(
        "streams; ages at the control ticks",
        "stream, Hz, expected Hz, median s, 99 % s, largest s, allowed s, gaps, out of order, twice, stale ticks",
        [
            (
                s.name,
                round(s.rate_hz, 1),
                s.expected_hz,
                *(round(age, 4) for age in s.ages_s),
                s.max_age_s,
                s.tally.gaps,
                s.tally.out_of_order,
                s.tally.duplicates,
                s.stale_ticks,
            )
            for s in bag.streams
        ],
    )
