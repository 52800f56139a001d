"""Rounds of two robots become one run that says of each episode where it comes from, and what does not fit is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from conftest import ROOT, contract_path
from dagger_ros.cli import main
from dagger_ros.contract import DaggerError, Label, Mode, RowLayout, load_contract
from dagger_ros.dataset import (
    EpisodeInfo,
    RecordedTopic,
    check_round,
    episode_folder,
    finish_round,
    inspect_rounds,
    labelled_frames,
    load_round,
    merge_rounds,
    read_episode,
    read_frames,
    round_folders,
    training_episodes,
    verify_round,
    write_rows,
)
from dagger_ros.dataset.bag import typestore_of
from dagger_ros.dataset.export import ExportSettings, export_lerobot, verify_lerobot

DEFINITIONS = {"dagger_ros/msg/GateDecision": (ROOT / "msg" / "GateDecision.msg").read_text()}
TICKS = 10


def contract_of(path: Path, body: str, change: Callable[[dict[str, Any]], object] = lambda c: None) -> Path:
    """The peg's contract for another body, whose topics have other names."""
    content = yaml.safe_load(contract_path("peg").read_text())
    content["robot"] = {"body": body, "description": f"the arm at {body}"}
    # No path of this checkout: splits are by the hash of the contract, and the same everywhere.
    content["simulation"]["model"] = "peg.xml"
    for stream in content["streams"].values():
        stream["topic"] = f"{body}/{stream['topic']}"
    content["splits"] = {"train": 0.5, "validation": 0.5, "stress": 0.0}
    change(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def record(run: Path, rounds: int = 2, episodes: int = 3, *, value: float = 0.0, operator: str = "ada") -> Path:
    """Rounds of a run that has a contract: every frame is a label, with a message of the tool."""
    contract = load_contract(run / "contract.yaml")
    layout = RowLayout(contract)
    for k in range(rounds):
        for episode in range(episodes):
            rows = layout.new(TICKS)
            rows["time_ns"] = rows["monotonic_ns"] = np.arange(TICKS) * 50_000_000
            rows["tick"], rows["mode"], rows["label_source"] = np.arange(TICKS), Mode.EXPERT, Label.EXPERT
            rows["intervention"], rows["episode"], rows["round"], rows["seed"] = 1, episode, k, episode
            rows["observation"] = value + np.arange(TICKS)[:, None]
            rows["expert_action"], rows["operator_id"] = 0.1, operator.encode()
            info = EpisodeInfo(
                k, episode, episode, "hg", contract.sha256, "", "", operator, 0, 10**9, True, "", None, {}, []
            )
            topic = contract.streams["tool_position"].topic
            write_rows(
                episode_folder(run / f"rounds/{k:03d}", episode),
                rows,
                layout,
                [pose(topic, tick * 50_000_000) for tick in range(TICKS)],
                {topic: RecordedTopic("geometry_msgs/msg/PoseStamped", reliable=False, latched=False)},
                info,
                contract_text=(run / "contract.yaml").read_text(),
                definitions=DEFINITIONS,
            )
        finish_round(run / f"rounds/{k:03d}", contract)
    return run


def pose(topic: str, time_ns: int) -> tuple[str, int, bytes]:
    store = typestore_of(())
    names = ("PoseStamped", "Pose", "Point", "Quaternion")
    stamped, pose_, point, quaternion = (store.types[f"geometry_msgs/msg/{name}"] for name in names)
    header, time = store.types["std_msgs/msg/Header"], store.types["builtin_interfaces/msg/Time"]
    stamp = time(time_ns // 10**9, time_ns % 10**9)
    message = stamped(header(stamp, "base"), pose_(point(0.0, 0.0, 0.0), quaternion(0.0, 0.0, 0.0, 1.0)))
    return topic, time_ns, bytes(store.serialize_cdr(message, "geometry_msgs/msg/PoseStamped"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two robots, two rounds each of three episodes, with the same seeds and numbers."""
    folder = tmp_path_factory.mktemp("recorded")
    for i, body in enumerate(("left", "right")):
        contract_of(folder / f"runs/{body}/contract.yaml", body)
        record(folder / "runs" / body, value=100.0 * i, operator=("ada", "bob")[i])
    return folder / "runs"


@pytest.fixture(scope="module")
def both(recorded: Path) -> Path:
    """Both of them in one run."""
    merge_rounds([recorded / "left", recorded / "right"], recorded / "both")
    return recorded / "both"


@pytest.fixture
def runs(recorded: Path, tmp_path: Path) -> Path:
    """A copy of it that may be changed."""
    for name in ("left", "right"):
        shutil.copytree(recorded / name, tmp_path / "runs" / name)
    return tmp_path / "runs"


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_merged_run_has_every_episode_and_says_of_each_its_robot_run_round_and_number(
    recorded: Path, both: Path
) -> None:
    contract = load_contract(both / "contract.yaml")
    for k, folder in enumerate(round_folders(both)):
        manifest = verify_round(folder, contract)
        assert (manifest.robot_body, manifest.operator_id) == ("left, right", "ada, bob")
        assert manifest.labels == 6 * TICKS
        for i, entry in enumerate(manifest.episodes):
            info = read_episode(episode_folder(folder, i))
            assert info.source == entry.source
            assert entry.source is not None
            robot = "left" if i < 3 else "right"
            found = entry.source
            assert (found.robot, found.run, found.round, found.episode) == (robot, robot, k, i % 3)
            original = load_contract(recorded / robot / "contract.yaml")
            assert info.contract_sha256 == original.sha256
            there = load_round(recorded / f"{robot}/rounds/{k:03d}", original).episodes[i % 3]
            # Split, seed and bag are what they were.
            assert (entry.split, entry.seed, entry.bag_sha256) == (there.split, there.seed, there.bag_sha256)


def test_merged_run_is_inspected_verified_exported_and_learned_from(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = runs / "both"
    main(["merge", str(runs / "left"), str(runs / "right"), "--out", str(out)])
    assert "3 left, 3 right" in capsys.readouterr().out
    contract = load_contract(out / "contract.yaml")
    main(["inspect", str(out)])
    assert "ada, bob" in capsys.readouterr().out
    # The messages of each robot are found under its own names.
    for view in inspect_rounds(round_folders(out), contract):
        assert {s.name: s.quality.messages for s in view.streams}["tool_position"] == 6 * TICKS
    observations, labels = labelled_frames(training_episodes(round_folders(out), contract))
    assert set((observations[:, 0] // 100).tolist()) == {0.0, 1.0}
    assert len(observations) == len(labels)
    export_lerobot(out, out / "contract.yaml", out / "dataset", ExportSettings())
    main(["verify", str(out)])
    assert "3 of 3 parts are as they were written" in capsys.readouterr().out
    table = pq.read_table(sorted((out / "dataset/meta/episodes").glob("*/*.parquet"))[0]).to_pylist()
    assert {row["dagger/robot"] for row in table} == {"left", "right"}
    assert {row["dagger/recorded_contract_sha256"] for row in table} == {
        load_contract(runs / robot / "contract.yaml").sha256 for robot in ("left", "right")
    }
    frames = pq.read_table(sorted((out / "dataset/data").glob("*/*.parquet"))[0]).to_pylist()
    episodes = {row["episode_index"]: row["dagger/episode"] for row in table}
    assert all(frame["dagger.episode"] == episodes[frame["episode_index"]] for frame in frames)
    verify_lerobot(out, out / "contract.yaml", out / "dataset")


def test_merging_leaves_the_sources_alone_and_gives_the_same_bytes_again(runs: Path) -> None:
    before = files(runs)
    merge_rounds([runs / "left", runs / "right"], runs / "both")
    merge_rounds([runs / "left", runs / "right"], runs / "again")
    assert files(runs / "both") == files(runs / "again")
    shutil.rmtree(runs / "both")
    shutil.rmtree(runs / "again")
    assert files(runs) == before


def test_bags_share_the_disk_with_those_of_the_sources(recorded: Path, both: Path) -> None:
    there = recorded / "right/rounds/001/episodes/000002/bag/bag.mcap"
    assert (both / "rounds/001/episodes/000005/bag/bag.mcap").samefile(there)


def test_disk_without_links_gets_copies(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    merge_rounds([runs / "left", runs / "right"], runs / "both")
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    merge_rounds([runs / "left", runs / "right"], runs / "again")
    assert files(runs / "both") == files(runs / "again")


def test_contract_of_the_new_run_may_be_that_of_another_robot_and_the_frames_are_the_same(
    recorded: Path, both: Path, tmp_path: Path
) -> None:
    other = tmp_path / "for_right"
    merge_rounds([recorded / "left", recorded / "right"], other, contract_path=recorded / "right/contract.yaml")
    frames = []
    for run, body in ((both, "left"), (other, "right")):
        contract = load_contract(run / "contract.yaml")
        assert contract.robot.body == body
        frames.append(labelled_frames(training_episodes(round_folders(run), contract)))
    np.testing.assert_array_equal(frames[0][0], frames[1][0])


def test_merged_run_is_merged_again_and_episodes_keep_where_they_were_recorded(runs: Path) -> None:
    contract_of(runs / "third/contract.yaml", "third")
    record(runs / "third", rounds=1, episodes=1)
    merge_rounds([runs / "left", runs / "right"], runs / "both")
    (first, _) = merge_rounds([runs / "both", runs / "third"], runs / "all")
    assert [e.source.robot for e in first.episodes if e.source] == ["left"] * 3 + ["right"] * 3 + ["third"]
    assert [e.source.run for e in first.episodes if e.source] == ["left"] * 3 + ["right"] * 3 + ["third"]
    with pytest.raises(DaggerError, match=r"expected each episode once; episode 0 is one of .*both/rounds/000, too"):
        merge_rounds([runs / "both", runs / "left"], runs / "twice")


def test_rounds_without_a_run_become_the_round_that_is_asked_for(runs: Path, tmp_path: Path) -> None:
    for body, k in (("left", 0), ("right", 1)):
        shutil.move(runs / f"{body}/rounds/001", tmp_path / f"{body}_week_{k}")
    out = tmp_path / "weeks"
    (round_,) = merge_rounds([tmp_path / "left_week_0", tmp_path / "right_week_1"], out, round_index=4)
    assert round_.round == 4
    assert [(e.source.run, e.source.round) for e in round_.episodes if e.source] == [("left_week_0", 1)] * 3 + [
        ("right_week_1", 1)
    ] * 3
    (folder,) = round_folders(out)
    contract = load_contract(out / "contract.yaml")
    frames = list(read_frames([folder], contract))
    assert {int(r) for f in frames for r in f.rows["round"]} == {4}
    assert [int(f.rows["episode"][0]) for f in frames] == list(range(6))
    main(["verify", str(out)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["timing"].update(control_rate_hz=10.0),
            "timing.control_rate_hz: expected 20.0 as in .*found 10.0",
        ),
        (
            lambda c: c["streams"]["joint_position"].update(resolution=0.5),
            "streams.joint_position.resolution: expected 0.01 as in .*found 0.5",
        ),
        (
            lambda c: c["action"]["dimensions"][1].update(upper=0.3),
            "action.dimensions.1.upper: expected 0.24 as in .*found 0.3",
        ),
        (lambda c: c["task"].update(horizon_s=7.0), "task.horizon_s: expected 6.0 as in .*found 7.0"),
        (lambda c: c.update(licence="MIT"), "licence: expected CC-BY-4.0 as in .*found MIT"),
        # The hash of a contract does not count the order of keys, but the order of streams is that of the columns.
        (
            lambda c: c.update(streams=dict(reversed(c["streams"].items()))),
            "streams: expected peg_in_hole, tool_position, .* found true_peg_in_hole, joint_effort",
        ),
        (
            lambda c: c["simulation"]["sources"].update(joint_effort={"kind": "sensors", "names": ["x"]}),
            "sources.joint",
        ),
    ],
)
def test_contract_under_which_frames_mean_something_else_is_refused_with_the_key(
    change: Callable[[dict[str, Any]], object], words: str, recorded: Path, tmp_path: Path
) -> None:
    contract_of(tmp_path / "other/contract.yaml", "other", change)
    record(tmp_path / "other", rounds=1, episodes=1)
    with pytest.raises(DaggerError, match=rf"other/rounds/000: .*{words}"):
        merge_rounds([recorded / "left", tmp_path / "other"], tmp_path / "merged")
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


def test_who_labels_how_much_and_with_which_pad_may_differ(recorded: Path, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["operator"] = {"source": "joystick", "description": "a person"}
        content["collection"]["episodes"] = 50
        content["expert"]["joystick"]["still_s"] = 9.0

    contract_of(tmp_path / "other/contract.yaml", "other", change)
    record(tmp_path / "other", rounds=1, episodes=1)
    rounds = merge_rounds([recorded / "left", tmp_path / "other"], tmp_path / "merged")
    assert [len(r.episodes) for r in rounds] == [4, 3]


def test_what_cannot_be_merged_is_named_and_nothing_is_written(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        before = files(runs)
        with pytest.raises(SystemExit) as exit_:
            main(["merge", *map(str, arguments)])
        assert exit_.value.code == 2
        assert files(runs) == before
        return capsys.readouterr().err

    left, right, out = runs / "left", runs / "right", runs / "both"
    assert "expected the folder of a run, with rounds/, or of a round" in refused(left, tmp_path / "none", "--out", out)
    assert "expected each episode once; episode 0 is one of" in refused(left, left, "--out", out)
    assert "left/merged: expected a folder outside of" in refused(left, right, "--out", left / "merged")
    assert "right: expected a folder that is new or empty" in refused(left, "--out", right)
    assert "round: expected a whole number >= 0, got -1" in refused(left, "--out", out, "--round", "-1")
    assert "rounds/000: expected no demonstrations (round 0) with --round 1" in refused(
        left, "--out", out, "--round", "1"
    )
    assert "rounds/001: expected nothing but round 0, the demonstrations, with --round 0, got round 1" in refused(
        left, "--out", out, "--round", "0"
    )
    info = read_episode(right / "rounds/001/episodes/000000")
    (right / "rounds/001/episodes/000000/episode.json").write_text(
        json.dumps({**json.loads((right / "rounds/001/episodes/000000/episode.json").read_text()), "rule": "dagger"})
    )
    assert info.rule == "hg"
    assert "000000/episode.json: expected the file that manifest.json names" in refused(left, right, "--out", out)
    finish_round(right / "rounds/001", load_contract(right / "contract.yaml"))
    assert "rounds/001: expected rule hg as in" in refused(left, right, "--out", out)
    (right / "rounds/001/manifest.json").unlink()
    assert "expected a finished round; there is no manifest.json" in refused(left, right, "--out", out)


def test_merged_episode_whose_run_means_something_else_is_refused(runs: Path) -> None:
    merge_rounds([runs / "left", runs / "right"], runs / "both")
    contract = load_contract(runs / "both/contract.yaml")
    other = contract.model_copy(update={"timing": contract.timing.model_copy(update={"latency_budget_s": 0.001})})
    manifest = runs / "both/rounds/000/manifest.json"
    manifest.write_text(manifest.read_text().replace(contract.sha256, other.sha256))
    with pytest.raises(DaggerError, match=r"timing.latency_budget_s: expected 0.001 as in the run, found 0.02"):
        training_episodes([manifest.parent], other)
    assert replace(check_round(manifest.parent, other), contract_sha256="").round == 0
