"""Writes a recorded episode with other labels beside the one that it was made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dagger_ros.contract import RowLayout
from dagger_ros.dataset.about import RELABELLED, BagAbout
from dagger_ros.dataset.bag import DECISION, plant_topics
from dagger_ros.dataset.contents import HEAD, Contents, read_contents, read_in_turn
from dagger_ros.dataset.episode import EpisodeInfo, read_episode
from dagger_ros.dataset.offline import write_rows
from dagger_ros.dataset.rounds import contract_of_run, episode_folder, keep_contract, load_round, manifest_sha256
from dagger_ros.dataset.rows import Rows

__all__ = ["write_relabelled"]


def write_relabelled(bag: Path, about: BagAbout, rows: Rows, round_: Path, *, operator_id: str) -> EpisodeInfo:
    """Writes an episode of the same number: the rows, and the recorded observations and commands.

    What the graph said of the old labels stays in the bag that was read. The run that the round belongs to gets the
    contract, where it has none.

    Args:
        bag: That the rows were read from, in the folder of its episode.
        about: What it says of itself.
        rows: (T,) with the new labels.
        round_: Folder of the round to write to.
        operator_id: Who labelled.

    Returns:
        What stands in its episode.json.

    Raises:
        DaggerError: If the bag is damaged or lies in no episode, there is one of this number, the round is of another
            contract, or the disk does not take it.
    """
    contract = about.contract
    contract_of_run(round_, contract)
    if manifest_sha256(round_):
        load_round(round_, contract)
    topics = plant_topics(contract)
    contents = read_contents(bag, lambda topic, type_: HEAD if topic in topics or type_ == DECISION else 0)
    definitions = {messages.type: messages.definition for messages in contents.topics.values()}
    info = replace(read_episode(bag.parent), operator_id=operator_id, acts=[])
    keep_contract(round_, contract, about.contract_text)
    return write_rows(
        episode_folder(round_, about.episode),
        rows,
        RowLayout(contract),
        _messages(contents, list(topics)),
        topics,
        info,
        contract_text=about.contract_text,
        definitions=definitions,
        about={RELABELLED: operator_id, "source": str(bag.absolute())},
    )


def _messages(contents: Contents, topics: list[str]) -> Iterator[tuple[str, int, bytes]]:
    """Topic, recorded time (ns) and bytes of each message of these topics, in order."""
    there = [(topic, contents.topics[topic]) for topic in topics if topic in contents.topics]
    order = np.concatenate([messages.order for _, messages in there])
    times_ns = np.concatenate([messages.times_ns for _, messages in there])
    names = [topic for topic, messages in there for _ in messages.order]
    places = np.argsort(order)
    for i, data in zip(places.tolist(), read_in_turn(contents.path, order[places].tolist()), strict=True):
        yield names[i], int(times_ns[i]), data
