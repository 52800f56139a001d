"""`dagger-ros replay`: recorded episodes decided again, from the bag alone."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import contract_path, limits_for, weak_policy
from dagger_ros.cli import main
from dagger_ros.contract import Act, DaggerError, InterventionReason, Label, RowLayout, load_contract
from dagger_ros.dataset import (
    BagWriter,
    RecordedTopic,
    finish_round,
    load_round,
    read_episode,
    read_rows,
    round_folder,
    write_rows,
)
from dagger_ros.dataset.about import find_bags, read_about, read_decided
from dagger_ros.supervisor import GateSettings, RuleOptions

pytest.importorskip("rclpy")
from rclpy.serialization import serialize_message

from dagger_ros.msg import GateDecision, OperatorAct
from dagger_ros.nodes.lockstep import LockstepGraph
from dagger_ros.nodes.share import message_definition

pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.usefixtures("ros_domain")]

PEG = contract_path("peg")
LAYOUT = RowLayout(load_contract(PEG))
OPTIONS = RuleOptions(beta="exponential", budget=0.2, expert_noise=0.1)
DECISION, ACT = "dagger_ros/msg/GateDecision", "dagger_ros/msg/OperatorAct"


@dataclass
class Run:
    """A run of one round with two corrected episodes, and its policy."""

    folder: Path
    policy: Path
    index: int = 1

    @property
    def round(self) -> Path:
        return round_folder(self.folder, self.index)

    @property
    def bag(self) -> Path:
        return self.round / "episodes/000000/bag"


def record(folder: Path, *, rule: str, round_index: int = 1) -> Run:
    policy = weak_policy("peg", folder / "policies/pi_000", limits=limits_for(rule))
    run = Run(folder, policy, round_index)
    with LockstepGraph(
        PEG,
        rule=rule,
        round_index=round_index,
        options=OPTIONS,
        policy=policy if round_index else None,
        out=run.round,
    ) as graph:
        for seed in (21, 22):
            graph.run_episode(seed)
    return run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A human-gated run; tests do not change it."""
    return record(tmp_path_factory.mktemp("replay") / "run", rule="hg")


def replayed(*arguments: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit status, output and errors."""
    status: Any = 0
    try:
        main(["replay", *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return status, said.out, said.err


@pytest.mark.parametrize(
    ("rule", "round_index"), [("bc", 0), ("dagger", 1), ("lazy", 1), ("thrifty", 1), ("ensemble", 1)]
)
def test_recorded_run_is_decided_again_to_the_same_bits_from_its_bags_alone(
    rule: str, round_index: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = record(tmp_path / "run", rule=rule, round_index=round_index)
    status, text, _ = replayed(run.folder, capsys=capsys)
    assert status == 0
    assert text.count("ticks, all equal\n") == 2
    assert text.endswith("2 of 2 episodes are decided as they were recorded\n")
    about = read_about(run.bag)
    assert about.settings is not None
    assert (about.settings.rule, about.settings.round, about.settings.options) == (rule, round_index, OPTIONS)
    assert about.settings.back_ticks == (2 if rule in ("lazy", "thrifty", "ensemble") else 1)


def test_bag_says_what_it_is_of(recorded: Run) -> None:
    about = read_about(recorded.round / "episodes/000001/bag")
    assert (about.round, about.episode, about.seed, about.rule, about.decided) == (1, 1, 22, "hg", True)
    assert about.contract_text == PEG.read_text()
    assert about.contract.sha256 == LAYOUT.contract.sha256
    assert about.settings == GateSettings("hg", 1, auto_arm=True, options=OPTIONS)


@pytest.mark.parametrize("part", ["", "rounds/001", "rounds/001/episodes/000001", "rounds/001/episodes/000001/bag"])
def test_run_round_episode_and_bag_are_found(part: str, recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    bags = [recorded.round / f"episodes/{i:06d}/bag" for i in range(2)]
    assert find_bags(recorded.folder / part) == (bags[1:] if "episodes" in part else bags)
    assert replayed(recorded.folder / part, capsys=capsys)[0] == 0


def test_what_is_not_finished_or_hidden_is_left_out(recorded: Run, tmp_path: Path) -> None:
    shutil.copytree(recorded.round, tmp_path / "rounds/.002.part")
    shutil.copytree(recorded.round, tmp_path / "rounds/001")
    (tmp_path / "rounds/001/episodes/000000/episode.json").unlink()
    assert find_bags(tmp_path) == [tmp_path / "rounds/001/episodes/000001/bag"]
    with pytest.raises(
        DaggerError, match="expected a rosbag2 folder, or that of an episode, a round or a run; found no"
    ):
        find_bags(tmp_path / "nowhere")


def test_same_policy_gives_the_recorded_rows(recorded: Run, capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = replayed(recorded.bag, "--policy", recorded.policy, capsys=capsys)
    assert status == 0
    assert "pi_000 on the observations of pi_000 (the robot did not follow it): " in text
    assert "ticks, all equal" in text
    assert "the proposals are nowhere further apart than 0.1 of the bounds' range" in text


def test_another_policy_differs_and_it_is_said_how(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = weak_policy("peg", tmp_path / "pi_003", seed=3)
    status, text, _ = replayed(recorded.bag, "--policy", other, capsys=capsys)
    assert status == 1
    rows = read_decided(recorded.bag)[1]
    assert f"{len(rows)} ticks, 0 equal\nthe first that differs, tick 0 (0.00 s)" in text
    for words in (
        "policy_action: replayed less recorded",
        "executed_action: replayed less recorded",
        "range of its bounds",
        "the proposals are further apart than 0.1 of the bounds' range in ",
        "mode POLICY",
        "a new driver is being eased in",
        "doubt         replayed",
        "pi_003",
    ):
        assert words in text, words
    status, text, _ = replayed(recorded.folder, "--policy", other, capsys=capsys)
    assert status == 1
    assert text.endswith("0 of 2 episodes are decided as they were recorded\n")
    assert text.count("\n") == 3
    assert text.count(" ticks, 0 equal; the proposals are further apart than 0.1 of the bounds' range in ") == 2


def test_only_policy_that_may_drive_gives_way_to_the_one_that_is_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A rule that asks for help lets only the weights drive that its limits were fitted to."""
    run = record(tmp_path / "run", rule="lazy")
    about = read_about(run.bag)
    assert about.settings is not None
    assert len(about.settings.policy_sha256) == 64
    assert replayed(run.bag, "--policy", run.policy, capsys=capsys)[0] == 0
    other = weak_policy("peg", tmp_path / "pi_003", seed=3)
    assert "POLICY_HASH" not in replayed(run.bag, "--policy", other, capsys=capsys)[1]


def test_policy_of_another_contract_is_refused(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lane = weak_policy("lane", tmp_path / "pi")
    status, _, error = replayed(recorded.bag, "--policy", lane, capsys=capsys)
    assert status == 2
    assert "this policy was trained under another contract" in error


def test_other_limits_show_what_they_would_have_done(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(PEG.read_text())
    for dimension in content["action"]["dimensions"]:
        dimension["acceleration_limit"] = 0.5
    content["simulation"]["model"] = str((PEG.parent / content["simulation"]["model"]).resolve())
    path = tmp_path / "soft.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    status, text, _ = replayed(recorded.bag, "--contract", path, capsys=capsys)
    assert status == 1
    assert f"under {path}: " in text
    assert "executed_action: replayed less recorded" in text
    assert "policy_action: " not in text
    (clamped,) = [line.split() for line in text.splitlines() if line.startswith("  CLAMPED_RATE")]
    assert int(clamped[2]) > int(clamped[1])
    assert replayed(recorded.bag, "--contract", PEG, capsys=capsys)[0] == 0


def test_contract_with_other_streams_or_another_action_is_refused(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = replayed(recorded.bag, "--contract", contract_path("lane"), capsys=capsys)
    assert status == 2
    assert (
        "expected the streams and the action of the contract that it was recorded under (peg), in their order" in error
    )
    assert "  action: expected velocity of vx [m/s], vy [m/s], vz [m/s]; found velocity of forward [m/s], turn" in error
    content = yaml.safe_load(PEG.read_text())
    content["streams"] = dict(reversed(content["streams"].items()))
    path = tmp_path / "reversed.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    assert replayed(recorded.bag, "--contract", path, capsys=capsys)[0] == 2


def written(folder: Path, run: Run, messages: list[tuple[str, int, bytes]], *, contract: Path = PEG) -> Path:
    """The first episode as an older version would have left it, with other messages; gives its bag."""
    definitions = {type_: message_definition(type_) for type_ in (DECISION, ACT)}
    write_rows(
        folder,
        read_decided(run.bag)[1],
        LAYOUT,
        messages,
        {"expert/act": RecordedTopic(ACT, reliable=True, latched=False)},
        read_episode(run.bag.parent),
        contract_text=contract.read_text(),
        definitions=definitions,
    )
    return folder / "bag"


def test_bag_without_settings_is_decided_by_the_defaults_of_its_rule_and_that_is_said(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, _ = replayed(written(tmp_path / "old", recorded, []), capsys=capsys)
    assert status == 0
    assert "[no supervisor/settings in this bag of an older version: defaults of rule hg, armed by itself]" in text


def test_label_that_the_operator_took_back_is_no_difference(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    decided = read_decided(recorded.bag)[1]
    undo = OperatorAct(act=Act.UNDO, contract_sha256=LAYOUT.contract.sha256)
    bag = written(tmp_path / "e", recorded, [("expert/act", int(decided["time_ns"][-1]), serialize_message(undo))])
    read = read_rows(bag, LAYOUT)
    assert (read["label_source"] == Label.EXPERT).sum() < (decided["label_source"] == Label.EXPERT).sum()
    assert replayed(bag, capsys=capsys)[0] == 0


def test_bag_whose_decisions_are_of_another_contract_than_it_says_is_refused(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = written(tmp_path / "e", recorded, [], contract=contract_path("lane"))
    status, _, error = replayed(bag, capsys=capsys)
    assert status == 2
    assert f"{bag}: expected decisions under contract " in error
    assert "(lane), found " in error


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, r"expected a bag that says what it is of \(metadata dagger_ros\), found nothing"),
        ({"contract": PEG.read_text()}, "expected round, episode, seed, rule and started_ns in its metadata; 'round'"),
    ],
)
def test_bag_that_does_not_say_what_it_is_of_is_refused(
    about: dict[str, str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = {"supervisor/decision": RecordedTopic(DECISION, reliable=True, latched=False)}
    bag = BagWriter(tmp_path / "bag", topics, {DECISION: message_definition(DECISION)}, about)
    bag.write("supervisor/decision", 1, serialize_message(GateDecision()))
    bag.close()
    with pytest.raises(DaggerError, match=message):
        read_about(tmp_path / "bag")
    status, _, error = replayed(tmp_path / "bag", capsys=capsys)
    assert status == 2
    assert f"{tmp_path / 'bag'}: expected " in error


def test_decision_that_was_changed_is_shown_in_words(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_decided(recorded.bag)[1]
    rows["executed_action"][5, 1] += 0.01
    rows["mode"][5] = 1
    rows["reasons"][5] |= np.uint64(1)
    definitions = {DECISION: message_definition(DECISION)}
    info = read_episode(recorded.bag.parent)
    write_rows(tmp_path / "e", rows, LAYOUT, [], {}, info, contract_text=PEG.read_text(), definitions=definitions)
    status, text, _ = replayed(tmp_path / "e", capsys=capsys)
    assert status == 1
    assert f"{len(rows)} ticks, {len(rows) - 1} equal; the first that differs is tick 5 (0.25 s): mode, reasons" in text
    (mode,) = [line.split() for line in text.splitlines() if line.startswith("  mode  ") and "HOLD" in line]
    assert mode == ["mode", "HOLD", "POLICY"]
    assert "OBSERVATION_NEVER" in text
    (executed,) = [line.split() for line in text.splitlines() if line.startswith("  executed_action") and "m/s" in line]
    assert (executed[1], executed[3]) == ("vy", "m/s")  # and nothing of vx and vz
    assert "vx" not in executed


def test_expert_labels_anew_and_says_how_far_it_is_from_what_was_recorded(
    recorded: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = read_decided(recorded.bag)[1]
    status, text, _ = replayed(recorded.bag, "--expert", capsys=capsys)
    assert status == 0
    labels = int((rows["label_source"] == Label.EXPERT).sum())
    assert f"{len(rows)} ticks, {labels} labels of an expert; {len(rows)} by scripted peg expert" in text
    assert "rms of labels" in text


def test_labels_of_the_expert_are_written_as_a_round_that_can_be_learned_from(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rounds/001"
    status, text, _ = replayed(recorded.round, "--expert", "--out", out, capsys=capsys)
    assert status == 0
    round_ = load_round(out, LAYOUT.contract)
    assert f"{out}: 2 episodes, {round_.labels} labels" in text
    assert [e.seed for e in round_.episodes] == [21, 22]
    for i, entry in enumerate(round_.episodes):
        bag = out / f"episodes/{i:06d}/bag"
        rows, before = read_rows(bag, LAYOUT), read_rows(recorded.round / f"episodes/{i:06d}/bag", LAYOUT)
        assert (rows["label_source"] == Label.EXPERT).all()
        assert (rows["expert_reason"] == InterventionReason.DEMONSTRATION).all()
        assert (rows["operator_id"] == b"scripted peg expert").all()
        assert np.isfinite(rows["expert_action"]).all()
        for name in ("observation", "executed_action", "mode", "time_ns", "policy_sha256"):
            assert rows[name].tobytes() == before[name].tobytes(), name
        info, old = (read_episode(b.parent) for b in (bag, recorded.round / f"episodes/{i:06d}/bag"))
        assert (info.seed, info.success, info.rule, info.operator_id) == (
            entry.seed,
            old.success,
            "hg",
            "scripted peg expert",
        )
        assert info.messages["joint_states"] == old.messages["joint_states"]
        assert info.messages["command"] == old.messages["command"]
    assert finish_round(out, LAYOUT.contract) == round_
    status, _, error = replayed(out, capsys=capsys)
    assert status == 2
    assert "expected a bag whose ticks a supervisor decided; this one was imported or labelled anew" in error
    status, _, error = replayed(recorded.round, "--expert", "--out", out, capsys=capsys)
    assert status == 2
    assert "expected no episode of this number yet; there is one, and it is left as it is" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "x"], "out: expected only with --expert, whose labels are written"),
        (["--expert", "--contract", str(PEG)], "contract: expected only without --expert, which decides nothing"),
        (["--expert", "--policy", "x"], "not allowed with argument"),
        (["--policy", "nowhere"], "nowhere: expected a policy here"),
        (["--contract", "nowhere.yaml"], "nowhere.yaml: expected a task contract"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, recorded: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, error = replayed(recorded.bag, *options, capsys=capsys)
    assert status == 2
    assert message in error


def test_contract_without_a_simulated_task_has_no_expert_to_label_again(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(PEG.read_text())
    content["simulation"]["task"] = "mine"
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    contract = load_contract(path)
    rows = read_decided(recorded.bag)[1]
    definitions = {DECISION: message_definition(DECISION)}
    info = read_episode(recorded.bag.parent)
    write_rows(
        tmp_path / "e", rows, RowLayout(contract), [], {}, info, contract_text=path.read_text(), definitions=definitions
    )
    status, _, error = replayed(tmp_path / "e", "--expert", capsys=capsys)
    assert status == 2
    assert "expert: expected a contract with simulation.task, one of " in error


def test_episodes_of_several_rounds_are_not_written_into_one(
    recorded: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("001", "002"):
        shutil.copytree(recorded.round, tmp_path / "rounds" / name)
    status, _, error = replayed(tmp_path, "--expert", "--out", tmp_path / "out", capsys=capsys)
    assert status == 2
    assert "out: expected the episodes of one round, got 4 of several; give one of rounds/" in error
    assert not (tmp_path / "out").exists()
