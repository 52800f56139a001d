"""Episodes whose recorder was killed: what is kept, what is said, and that nothing else is touched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from rclpy.serialization import serialize_message

from conftest import contract_path
from dagger_ros.cli import main
from dagger_ros.contract import Act, DaggerError, RowLayout, load_contract
from dagger_ros.dataset import (
    BagWriter,
    RecordedTopic,
    finish_round,
    load_round,
    read_episode,
    read_rows,
    recover_episode,
    unfinished_episodes,
)
from dagger_ros.msg import OperatorAct
from dagger_ros.nodes.lockstep import LockstepGraph
from dagger_ros.nodes.share import message_definition

CONTRACT = load_contract(contract_path("peg"))
LAYOUT = RowLayout(CONTRACT)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A round of two finished demonstrations."""
    folder = tmp_path_factory.mktemp("recorded") / "rounds" / "000"
    with LockstepGraph(contract_path("peg"), rule="hg", round_index=0, out=folder) as graph:
        for seed in (1, 2):
            graph.run_episode(seed)
    return folder


@pytest.fixture
def killed(recorded: Path, tmp_path: Path) -> Path:
    """The same round, the second episode as its recorder leaves it when it is killed at the very end."""
    folder = tmp_path / "rounds" / "000"
    shutil.copytree(recorded, folder)
    episode = folder / "episodes/000001"
    (episode / "episode.json").unlink()
    (episode / "bag" / "metadata.yaml").unlink()
    (episode / "bag").rename(episode / ".bag.part")
    return episode


def cut(episode: Path, size: int) -> None:
    path = episode / ".bag.part/bag.mcap"
    path.write_bytes(path.read_bytes()[:size])


def rows_of(episode: Path) -> Any:
    return read_rows(episode / "bag", LAYOUT)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.999, 1.0])
def test_killed_bag_is_whole_up_to_where_it_was_cut(recorded: Path, killed: Path, share: float) -> None:
    rows, before = rows_of(recorded / "episodes/000001"), read_episode(recorded / "episodes/000001")
    size = (killed / ".bag.part/bag.mcap").stat().st_size
    cut(killed, round(share * size))
    done = recover_episode(killed)
    kept = rows_of(killed)
    assert 0 < len(kept) <= len(rows)
    assert kept.tobytes() == rows[: len(kept)].tobytes()
    assert (len(kept) == len(rows)) == (share > 0.6)
    assert (done.lost_bytes > 0) == (share < 1.0)
    info = read_episode(killed)
    assert info == done.info
    assert (info.recovered, info.success, info.failure, info.metric) == (True, False, "", None)
    for name in ("round", "episode", "seed", "rule", "contract_sha256", "policy", "operator_id", "started_ns"):
        assert getattr(info, name) == getattr(before, name)
    assert info.messages["supervisor/decision"] == len(kept)
    with (killed / "bag/bag.mcap").open("rb") as file:
        messages = list(make_reader(file).iter_messages())
    assert len(messages) == sum(info.messages.values())
    assert [p.name for p in sorted(killed.iterdir())] == ["bag", "episode.json"]
    assert unfinished_episodes(killed.parent.parent) == []


def test_what_is_recovered_is_the_bag_that_was_not_finished(recorded: Path, killed: Path) -> None:
    recover_episode(killed)
    for name in ("bag.mcap", "metadata.yaml"):
        assert (killed / "bag" / name).read_bytes() == (recorded / "episodes/000001/bag" / name).read_bytes()


def test_other_bytes_end_what_is_kept_and_it_is_said_where(recorded: Path, killed: Path) -> None:
    path = killed / ".bag.part/bag.mcap"
    data = bytearray(path.read_bytes())
    data[round(0.4 * len(data))] ^= 0xFF
    path.write_bytes(data)
    done = recover_episode(killed)
    rows = rows_of(recorded / "episodes/000001")
    kept = rows_of(killed)
    assert 0 < len(kept) < len(rows)
    assert kept.tobytes() == rows[: len(kept)].tobytes()
    assert done.whole_bytes < 0.4 * len(data)
    assert done.lost_bytes == len(data) - done.whole_bytes


def test_recovery_that_was_itself_killed_begins_anew(recorded: Path, killed: Path) -> None:
    (killed / ".bag.part").rename(killed / ".bag.killed")
    (killed / "bag").mkdir()
    (killed / "bag/bag.mcap").write_bytes(b"half")
    recover_episode(killed)
    assert len(rows_of(killed)) == len(rows_of(recorded / "episodes/000001"))


def test_whole_bag_without_its_description_gets_one(recorded: Path, tmp_path: Path) -> None:
    episode = tmp_path / "rounds/000/episodes/000000"
    shutil.copytree(recorded / "episodes/000000", episode)
    (episode / "episode.json").unlink()
    before = (episode / "bag/bag.mcap").read_bytes()
    assert recover_episode(episode).lost_bytes == 0
    assert read_episode(episode).seed == 1
    assert (episode / "bag/bag.mcap").read_bytes() == before


def with_act(episode: Path, recorded: Path, act: Act) -> None:
    """The bag of a recorder that was killed behind an act of the operator."""
    types = {"expert/act": "dagger_ros/msg/OperatorAct", "supervisor/decision": "dagger_ros/msg/GateDecision"}
    with (recorded / "episodes/000001/bag/bag.mcap").open("rb") as file:
        decision = next(make_reader(file).iter_messages(topics=["/supervisor/decision"]))[2].data
    about = {"contract": Path(contract_path("peg")).read_text(), "round": "1", "episode": "0", "seed": "-1"}
    writer = BagWriter(
        episode / "bag",
        {topic: RecordedTopic(type_, reliable=True, latched=False) for topic, type_ in types.items()},
        {type_: message_definition(type_) for type_ in types.values()},
        about | {"rule": "hg", "started_ns": "0"},
    )
    writer.write("supervisor/decision", 1_000_000_000, decision)
    message = OperatorAct(act=act, contract_sha256=CONTRACT.sha256, failure="jammed" if act is Act.FAILURE else "")
    writer.write("expert/act", 2_000_000_000, serialize_message(message))
    writer.close()


@pytest.mark.parametrize(("act", "success", "failure"), [(Act.SUCCESS, True, ""), (Act.FAILURE, False, "jammed")])
def test_what_the_operator_said_of_the_episode_counts(
    act: Act, success: bool, failure: str, recorded: Path, tmp_path: Path
) -> None:
    episode = tmp_path / "episodes/000000"
    with_act(episode, recorded, act)
    info = recover_episode(episode).info
    assert (info.success, info.failure) == (success, failure)
    assert [a["act"] for a in info.acts] == [act.name.lower()]


def test_episode_that_the_operator_discarded_is_left_as_it_is(recorded: Path, tmp_path: Path) -> None:
    episode = tmp_path / "episodes/000000"
    with_act(episode, recorded, Act.DISCARD)
    with pytest.raises(DaggerError, match="the operator discarded this episode; it is left as it is"):
        recover_episode(episode)
    assert [p.name for p in episode.iterdir()] == ["bag"]


def test_verb_recovers_all_and_writes_the_manifest(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = killed.parent.parent.parent.parent
    shutil.copytree(killed, run / "rounds/.001.part/episodes/000000")  # dagger-ros run runs these again
    cut(killed, 30_000)
    main(["recover", str(run)])
    text = capsys.readouterr().out
    assert "episodes/000001: " in text
    assert "are lost" in text
    assert "2 episodes in its manifest" in text
    assert [e.episode for e in load_round(killed.parent.parent, CONTRACT).episodes] == [0, 1]
    assert "a policy that was trained" not in text  # there was no manifest
    main(["recover", str(run)])
    assert "nothing to recover, every episode has its episode.json" in capsys.readouterr().out


def with_bytes(killed: Path, data: bytes) -> None:
    (killed / ".bag.part/bag.mcap").write_bytes(data)


def of_an_older_version(killed: Path) -> None:
    shutil.rmtree(killed / ".bag.part")
    writer = BagWriter(killed / "bag", {}, {}, {})
    writer.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: (k / ".bag.part/bag.mcap").unlink(), "expected what a recorder wrote; No such file"),
        (lambda k: with_bytes(k, b""), "expected a bag that says what it is of"),
        (lambda k: with_bytes(k, b"no mcap at all"), "expected a bag that says what it is of"),
        (lambda k: cut(k, 7_000), "expected at least one decision in the bag, found none to learn from"),
        (of_an_older_version, "recorded by an older version"),
    ],
)
def test_what_nothing_can_be_made_of_is_left_as_it_is(
    change: Any, message: str, killed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(killed)
    before = sorted(p.relative_to(killed) for p in killed.rglob("*"))
    with pytest.raises(SystemExit) as status:
        main(["recover", str(killed.parent.parent)])
    assert status.value.code == 2
    assert message in capsys.readouterr().err
    assert sorted(p.relative_to(killed) for p in killed.rglob("*")) == before


def test_bag_without_its_metadata_is_made_anew(recorded: Path, killed: Path) -> None:
    (killed / ".bag.part").rename(killed / "bag")
    recover_episode(killed)
    assert len(rows_of(killed)) == len(rows_of(recorded / "episodes/000001"))
    assert [p.name for p in sorted(killed.iterdir())] == ["bag", "episode.json"]


def test_manifest_that_is_written_anew_is_said(killed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish_round(killed.parent.parent, CONTRACT)
    main(["recover", str(killed.parent.parent)])
    assert "2 episodes in its manifest; a policy that was trained on the manifest before" in capsys.readouterr().out


def test_folder_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["recover", str(tmp_path)])
    assert "expected the folder of a run or a round, with episodes; there are none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["recover", str(tmp_path / "nothing")])
    assert "expected the folder of a run or a round; there is none" in capsys.readouterr().err


def test_bag_that_is_being_recorded_is_left_alone(tmp_path: Path) -> None:
    episode = tmp_path / "episodes/000000"
    writer = BagWriter(episode / "bag", {}, {}, {"contract": "x"})
    assert unfinished_episodes(tmp_path) == [episode]
    with pytest.raises(DaggerError, match="expected a bag that nobody writes; it is being recorded"):
        recover_episode(episode)
    writer.discard()
    assert unfinished_episodes(tmp_path) == []
