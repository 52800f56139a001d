"""Descriptions of rounds and episodes that were edited are refused in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, contract_path
from dagger_ros.cli import main
from dagger_ros.contract import Contract, DaggerError, Label, Mode, RowLayout
from dagger_ros.dataset import (
    EpisodeInfo,
    RecordedTopic,
    check_round,
    episode_folder,
    finish_round,
    inspect_rounds,
    load_round,
    read_episode,
    read_frames,
    read_rows,
    recover_episode,
    training_episodes,
    verify_round,
    write_rows,
)
from dagger_ros.dataset.bag import typestore_of

DEFINITIONS = {"dagger_ros/msg/GateDecision": (ROOT / "msg" / "GateDecision.msg").read_text()}
INFO = EpisodeInfo(0, 0, -1, "bc", "", "", "", "ada", 0, 10**9, True, "", None, {}, [])


@pytest.fixture
def round_(peg: Contract, tmp_path: Path) -> Path:
    """Two demonstrations of 20 ticks."""
    layout = RowLayout(peg)
    for episode in range(2):
        rows = layout.new(20)
        rows["time_ns"] = rows["monotonic_ns"] = np.arange(20) * 50_000_000
        rows["tick"], rows["mode"], rows["label_source"] = np.arange(20), Mode.EXPERT, Label.EXPERT
        rows["intervention"], rows["episode"], rows["seed"] = 1, episode, -1
        rows["observation"] = np.arange(20)[:, None]
        info = replace(INFO, episode=episode, contract_sha256=peg.sha256)
        text = contract_path("peg").read_text()
        folder = episode_folder(tmp_path / "rounds/000", episode)
        write_rows(folder, rows, layout, [], {}, info, contract_text=text, definitions=DEFINITIONS)
    finish_round(tmp_path / "rounds/000", peg)
    return tmp_path / "rounds/000"


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_round_is_as_its_manifest_says(round_: Path, peg: Contract) -> None:
    assert verify_round(round_, peg).labels == 40


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(episodes=[]), "every finished episode, but 0, 1 are not in it"),
        (lambda m: m["episodes"].append(m["episodes"][0]), r"each episode once and in order, found \[0, 1, 0\]"),
        (lambda m: m["episodes"][0].update(episode="0"), r"episodes.0.episode: expected a whole number; found '0'"),
        (lambda m: m["episodes"][0].update(bag_sha256=[]), r"episodes.0.bag_sha256: expected a mapping; found \[\]"),
        (lambda m: m.update(contract_sha256=5), "contract_sha256: expected text"),
        (lambda m: m.update(colour="red"), "colour: expected no such key here"),
        (lambda m: m.pop("rule"), "rule: expected this key; found nothing"),
        (lambda m: m.update(schema="dagger_ros.round/9"), "found dagger_ros.round/9"),
    ],
)
def test_manifest_of_another_form_is_refused(
    change: Callable[[Any], object], words: str, round_: Path, peg: Contract
) -> None:
    edit(round_ / "manifest.json", change)
    with pytest.raises(DaggerError, match=rf"(?s)manifest.json: expected .*{words}"):
        load_round(round_, peg)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\ufeff{}", '{"episodes": ' + "[" * 2000])
def test_manifest_that_is_no_json_object_is_refused(text: str, round_: Path, peg: Contract) -> None:
    (round_ / "manifest.json").write_text(text)
    with pytest.raises(DaggerError, match="expected the manifest of a round"):
        load_round(round_, peg)


@pytest.mark.parametrize("change", [{"rule": "hg"}, {"operator_id": "eve"}, {"round": 3}, {"licence": "other"}])
def test_manifest_that_says_something_else_than_its_episodes_is_named(
    change: dict[str, Any], round_: Path, peg: Contract
) -> None:
    edit(round_ / "manifest.json", lambda m: m.update(change))
    (name,) = change
    with pytest.raises(DaggerError, match=f"manifest.json: {name}: the manifest says {change[name]}, its episodes"):
        verify_round(round_, peg)


def test_description_of_an_episode_that_was_edited_is_named(round_: Path, peg: Contract) -> None:
    edit(round_ / "episodes/000001/episode.json", lambda e: e.update(operator_id="eve"))
    for use in (
        lambda: verify_round(round_, peg),
        lambda: check_round(round_, peg),
        lambda: training_episodes([round_], peg),
        lambda: list(read_frames([round_], peg)),
        lambda: list(inspect_rounds([round_], peg)),
    ):
        with pytest.raises(DaggerError, match=r"000001/episode.json: expected the file that manifest.json names"):
            use()


def test_round_of_an_older_version_has_no_hash_of_the_descriptions(round_: Path, peg: Contract) -> None:
    edit(round_ / "manifest.json", lambda m: [e.pop("about_sha256") for e in m["episodes"]])
    assert verify_round(round_, peg).labels == 40
    edit(round_ / "episodes/000001/episode.json", lambda e: e.update(success=False))
    with pytest.raises(DaggerError, match="episode 1, success: the manifest says True, its bag and "):
        verify_round(round_, peg)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"started_ns": "yesterday"}, "started_ns: expected a whole number; found 'yesterday'"),
        ({"messages": 3}, "messages: expected a mapping; found 3"),
        ({"success": "yes"}, "success: expected true or false; found 'yes'"),
        ({"colour": "red"}, "colour: expected no such key here"),
        ({"schema": "dagger_ros.episode/9"}, "found dagger_ros.episode/9"),
    ],
)
def test_description_of_an_episode_of_another_form_is_refused(change: dict[str, Any], words: str, round_: Path) -> None:
    edit(round_ / "episodes/000000/episode.json", lambda e: e.update(change))
    with pytest.raises(DaggerError, match=rf"(?s)episode.json: expected the description of an episode.*{words}"):
        read_episode(round_ / "episodes/000000")


def test_metric_that_is_not_known_or_no_number_comes_back(round_: Path) -> None:
    for metric in (None, 1, 0.5, float("inf")):
        edit(round_ / "episodes/000000/episode.json", lambda e, metric=metric: e.update(metric=metric))
        assert read_episode(round_ / "episodes/000000").metric == metric


def test_round_whose_recorder_was_killed_between_episodes_gets_its_manifest(
    round_: Path, peg: Contract, capsys: pytest.CaptureFixture[str]
) -> None:
    written = (round_ / "manifest.json").read_bytes()
    (round_ / "manifest.json").unlink()
    with pytest.raises(DaggerError, match=r"expected a finished round; .* \(`dagger-ros recover` writes it\)"):
        load_round(round_, peg)
    main(["recover", str(round_.parent.parent)])
    assert "rounds/000: 2 episodes in its manifest\n" in capsys.readouterr().out
    assert (round_ / "manifest.json").read_bytes() == written


def test_round_that_went_on_after_its_manifest_gets_another(
    round_: Path, peg: Contract, capsys: pytest.CaptureFixture[str]
) -> None:
    written = (round_ / "manifest.json").read_bytes()
    edit(round_ / "manifest.json", lambda m: m["episodes"].pop())
    main(["recover", str(round_)])
    assert "2 episodes in its manifest; a policy that was trained on the manifest before" in capsys.readouterr().out
    assert (round_ / "manifest.json").read_bytes() == written
    main(["recover", str(round_)])
    assert "nothing to recover" in capsys.readouterr().out


def test_recovery_goes_on_behind_a_round_that_cannot_be_recovered(
    round_: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (round_ / "manifest.json").unlink()
    other = round_.with_name("001")
    shutil.copytree(round_, other)
    (round_ / "episodes/000000/bag/bag.mcap").write_bytes(b"no bag")
    with pytest.raises(SystemExit) as exit_:
        main(["recover", str(round_.parent.parent)])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert "000000/bag/bag.mcap: expected a whole bag; it is damaged or cut short at byte 0" in said.err
    assert "rounds/001: 2 episodes in its manifest" in said.out


def test_bag_that_was_damaged_after_it_was_whole_is_made_whole_without_its_end(round_: Path, peg: Contract) -> None:
    episode = round_ / "episodes/000001"
    (episode / "episode.json").unlink()
    path = episode / "bag/bag.mcap"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1500])
    assert recover_episode(episode).lost_bytes > 0
    rows = read_rows(episode / "bag", RowLayout(peg))
    assert 0 < len(rows) <= 20
    assert read_episode(episode).messages == {"supervisor/decision": len(rows)}


def pose(time_ns: int) -> tuple[str, int, bytes]:
    """A message of the peg's tool, at rest."""
    store = typestore_of(())
    names = ("PoseStamped", "Pose", "Point", "Quaternion")
    stamped, pose_, point, quaternion = (store.types[f"geometry_msgs/msg/{name}"] for name in names)
    header, time = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    stamp = time(time_ns // 10**9, time_ns % 10**9)
    message = stamped(header(stamp, "base"), pose_(point(0.0, 0.0, 0.0), quaternion(0.0, 0.0, 0.0, 1.0)))
    return "tool_pose", time_ns, bytes(store.serialize_cdr(message, "geometry_msgs/msg/PoseStamped"))


@pytest.mark.parametrize(("keep", "gaps"), [("all", (3, 43)), ("corrections", (1, 3))])
def test_what_the_recorder_was_told_to_leave_out_is_no_gap(
    keep: str, gaps: tuple[int, int], round_: Path, peg: Contract
) -> None:
    assert peg.streams["tool_position"].topic == "tool_pose"
    shutil.rmtree(round_)
    # Three corrections; within the second one three messages are missing.
    ticks = np.array([*range(10), *range(30, 40), *range(60, 70)])
    layout = RowLayout(peg)
    rows = layout.new(len(ticks))
    rows["time_ns"] = rows["monotonic_ns"] = ticks * 50_000_000
    rows["tick"], rows["mode"], rows["label_source"], rows["seed"] = ticks, Mode.EXPERT, Label.EXPERT, -1
    messages = [pose(int(tick) * 50_000_000) for tick in ticks if tick not in (33, 34, 35)]
    info = replace(INFO, contract_sha256=peg.sha256, keep=keep, finished_ns=100 * 50_000_000)
    topics = {"tool_pose": RecordedTopic("geometry_msgs/msg/PoseStamped", reliable=False, latched=False)}
    text = contract_path("peg").read_text()
    folder = episode_folder(round_, 0)
    write_rows(folder, rows, layout, messages, topics, info, contract_text=text, definitions=DEFINITIONS)
    finish_round(round_, peg)
    (view,) = inspect_rounds([round_], peg)
    (stream,) = (s for s in view.streams if s.name == "tool_position")
    assert (stream.quality.gaps, stream.quality.missing) == gaps
    assert stream.rate_hz == pytest.approx(27 / (30 * 0.05))
