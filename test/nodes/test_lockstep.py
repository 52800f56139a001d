"""The graph in one process: the same rows as without ROS, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import by_joint_position, contract_path, limits_for, weak_policy
from dagger_ros.cli import main
from dagger_ros.contract import DaggerError, Label, Mode, RowLayout, load_contract
from dagger_ros.control import ControlTick
from dagger_ros.dataset import (
    check_round,
    finish_round,
    inspect_rounds,
    labelled_frames,
    load_round,
    read_episode,
    read_rows,
    training_episodes,
)
from dagger_ros.policy import load_checkpoint
from dagger_ros.sim import Perturbation, load_plant, rollout
from dagger_ros.sim.experts import labeller_of_rule, make_labeller
from dagger_ros.supervisor import ROBOT_GATED, Gate, Limits, RuleOptions, make_rule

pytest.importorskip("rclpy")
from dagger_ros.nodes.lockstep import LockstepGraph

pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.usefixtures("ros_domain")]

OPTIONS = RuleOptions(beta="exponential", budget=0.2, expert_noise=0.1)


def without_ros(
    task: str, rule: str, round_index: int, policy: Path | None, seeds: list[int], perturbation: dict[str, float]
) -> list[Any]:
    contract = load_contract(contract_path(task))
    plant = load_plant(contract, contract_path(task), Perturbation(**perturbation))
    loaded = load_checkpoint(policy, contract) if policy else None
    limits = Limits.fitted(rule, loaded[0].limits) if loaded and rule in ROBOT_GATED else None
    gate = Gate(contract, make_rule(rule, round_index=round_index, options=OPTIONS, limits=limits), auto_arm=True)
    labeller = make_labeller(labeller_of_rule(rule, round_index), contract)
    layout, ticks = RowLayout(contract), contract.horizon_ticks
    control = ControlTick(layout, gate, labeller, loaded)
    return [
        rollout(plant, control, layout, seed=seed, ticks=ticks, round_index=round_index, episode=i)[0]
        for i, seed in enumerate(seeds)
    ]


@pytest.mark.parametrize(
    ("rule", "round_index", "perturbation"),
    [
        ("hg", 0, {}),
        ("hg", 1, {}),
        ("dagger", 1, {}),
        ("lazy", 1, {}),
        ("thrifty", 1, {}),
        ("hg", 1, {"observation_delay_s": 0.1, "observation_drop": 0.2, "observation_noise": 1.0}),
    ],
)
def test_graph_and_in_process_rollouts_give_the_same_rows(
    task: str, rule: str, round_index: int, perturbation: dict[str, float], tmp_path: Path
) -> None:
    contract, seeds = load_contract(contract_path(task)), [21, 22]
    policy = weak_policy(task, tmp_path / "pi_000", limits=limits_for(rule)) if round_index else None
    out = tmp_path / "round"
    with LockstepGraph(
        contract_path(task),
        rule=rule,
        round_index=round_index,
        options=OPTIONS,
        policy=policy,
        out=out,
        perturbation=perturbation,
    ) as graph:
        for seed in seeds:
            graph.run_episode(seed)
    expected = without_ros(task, rule, round_index, policy, seeds, perturbation)
    for i, rows in enumerate(expected):
        recorded = read_rows(out / "episodes" / f"{i:06d}" / "bag", RowLayout(contract))
        assert len(recorded) == len(rows)
        for name in rows.dtype.names:
            assert recorded[name].tobytes() == rows[name].tobytes(), f"episode {i}: {name} differs"
    modes = {Mode(m) for rows in expected for m in np.unique(rows["mode"])}
    if round_index:
        assert {Mode.POLICY, Mode.EXPERT} <= modes


def contract_of_plain_arrays(folder: Path, *, position: bool = False) -> Path:
    """The peg's arm behind Float64MultiArray, which has no stamp, read from MuJoCo sensors."""
    content = yaml.safe_load(contract_path("peg").read_text())
    joints = [f"j{i}" for i in range(1, 7)]
    model = (contract_path("peg").parent.parent / "models" / "peg.xml").read_text()
    sensors = "".join(f'<jointpos name="s_{j}" joint="{j}"/>' for j in joints)
    (folder / "arm.xml").write_text(model.replace("</mujoco>", f"<sensor>{sensors}</sensor></mujoco>"))
    content["simulation"]["model"] = "arm.xml"
    content["simulation"]["sources"]["joint_position"] = {"kind": "sensors", "names": [f"s_{j}" for j in joints]}
    content["streams"]["joint_position"] |= {
        "topic": "arm/position",
        "type": "std_msgs/msg/Float64MultiArray",
        "select": ["data[0:6]"],
    }
    content["action"]["type"] = "std_msgs/msg/Float64MultiArray"
    for i, dimension in enumerate(content["action"]["dimensions"]):
        dimension["select"] = f"data[{i}]"
    if position:
        content["simulation"]["actuation"] = {"kind": "actuators", "names": [f"a{i}" for i in range(1, 7)]}
        by_joint_position(content)
    path = folder / "arrays.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_messages_without_a_stamp_give_the_same_rows_too(tmp_path: Path) -> None:
    path = contract_of_plain_arrays(tmp_path)
    with LockstepGraph(path, rule="bc", round_index=0, out=tmp_path / "round") as graph:
        assert graph.run_episode(7).success
    contract = load_contract(path)
    layout = RowLayout(contract)
    gate = Gate(contract, make_rule("bc", round_index=0), auto_arm=True)
    control = ControlTick(layout, gate, make_labeller("scripted", contract), None)
    plant = load_plant(contract, path)
    rows, _ = rollout(plant, control, layout, seed=7, ticks=contract.horizon_ticks, round_index=0, episode=0)
    assert read_rows(tmp_path / "round/episodes/000000/bag", layout).tobytes() == rows.tobytes()


def test_graph_goes_on_while_the_supervisor_sends_nothing(tmp_path: Path) -> None:
    """A position interface that was not measured yet has nothing to hold."""
    path = contract_of_plain_arrays(tmp_path, position=True)
    delayed = {"observation_delay_s": 0.1}
    with LockstepGraph(
        path, rule="hg", round_index=1, out=tmp_path / "round", expert=False, perturbation=delayed
    ) as graph:
        assert graph.run_episode(7).failure == "not_found"
    rows = read_rows(tmp_path / "round/episodes/000000/bag", RowLayout(load_contract(path)))
    assert np.isnan(rows["executed_action"][:2]).all()
    assert np.isfinite(rows["executed_action"][2:]).all()
    # Nothing was asked for, so the arm is held where it began, not pulled to its zero pose.
    joints = [i for i, c in enumerate(RowLayout(load_contract(path)).columns()) if c.startswith("joint_position")]
    position = rows["observation"][2:, joints]
    assert np.abs(position - position[0]).max() < 0.02
    assert len(rows) == load_contract(path).horizon_ticks


def test_round_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    bags = []
    for name in ("a", "b"):
        with LockstepGraph(contract_path("peg"), rule="bc", round_index=0, out=tmp_path / name) as graph:
            graph.run_episode(5)
        bags.append((tmp_path / name / "episodes/000000/bag/bag.mcap").read_bytes())
    assert bags[0] == bags[1]


@pytest.fixture
def round_folder(tmp_path: Path) -> Path:
    """A finished round of two demonstrations."""
    folder = tmp_path / "rounds" / "000"
    with LockstepGraph(contract_path("peg"), rule="hg", round_index=0, out=folder) as graph:
        for seed in (1, 2):
            graph.run_episode(seed)
    finish_round(folder, load_contract(contract_path("peg")))
    return folder


def test_round_says_who_did_what(round_folder: Path) -> None:
    contract = load_contract(contract_path("peg"))
    round_ = load_round(round_folder, contract)
    assert [e.seed for e in round_.episodes] == [1, 2]
    assert round_.operator_id == "scripted peg expert"
    assert all(e.success and e.takeover_reasons == {"demonstration": 1} for e in round_.episodes)
    observations, labels = labelled_frames(training_episodes([round_folder], contract))
    assert len(observations) == len(labels) == round_.labels > 50
    info = read_episode(round_folder / "episodes" / "000001")
    assert (info.seed, info.success, info.contract_sha256) == (2, True, contract.sha256)
    assert info.messages["supervisor/decision"] == round_.episodes[1].ticks
    assert info.messages["joint_states"] == info.messages["command"] == round_.episodes[1].ticks


def test_inspection_shows_labels_and_streams(round_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = round_folder.parent.parent
    (view,) = inspect_rounds([round_folder], load_contract(contract_path("peg")))
    frames = sum(e.ticks for e in view.manifest.episodes)
    assert view.labels == {"none": 0, "policy": 0, "expert": frames}
    assert view.new_share is None
    assert {s.name: s.rate_hz for s in view.streams}["joint_position"] == pytest.approx(20, abs=1)
    assert all(s.ages_s == (0, 0, 0) for s in view.streams)
    main(["inspect", str(run), "--contract", str(contract_path("peg"))])
    text = capsys.readouterr().out
    assert "timing: not measured (in lockstep" in text
    for words in ("scripted peg expert", "2 demonstration", "joint_position", f"  {frames} "):
        assert words in text
    with pytest.raises(SystemExit):
        main(["inspect", str(run / "rounds")])
    assert "expected the folder of a run, with rounds/000; there is none" in capsys.readouterr().err


def test_every_frame_carries_its_provenance(round_folder: Path) -> None:
    rows = read_rows(round_folder / "episodes/000001/bag", RowLayout(load_contract(contract_path("peg"))))
    assert (rows["seed"] == 2).all()
    assert (rows["episode"] == 1).all()
    assert (rows["round"] == 0).all()
    assert (rows["operator_id"] == b"scripted peg expert").all()
    assert (rows["label_source"] == Label.EXPERT).all()


def test_bag_is_read_by_the_mcap_reader_too(round_folder: Path) -> None:
    from mcap.reader import make_reader

    with (round_folder / "episodes/000000/bag/bag.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    assert summary.statistics is not None
    assert summary.statistics.message_count > 100
    assert {s.name for s in summary.schemas.values()} >= {"dagger_ros/msg/GateDecision", "sensor_msgs/msg/JointState"}


@pytest.mark.parametrize("size", [0, 100, 5_000])
def test_truncated_bag_is_refused_and_left_as_it_is(round_folder: Path, size: int) -> None:
    contract = load_contract(contract_path("peg"))
    bag = round_folder / "episodes/000000/bag/bag.mcap"
    bag.write_bytes(bag.read_bytes()[:size])
    with pytest.raises(DaggerError, match=r"bag.mcap: expected a whole bag; it is damaged or cut short at byte"):
        read_rows(bag.parent, RowLayout(contract))
    with pytest.raises(
        DaggerError, match=r"bag.mcap: expected the file that manifest.json names; it is gone or changed"
    ):
        training_episodes([round_folder], contract)
    assert bag.stat().st_size == size


def test_round_without_a_manifest_is_refused(round_folder: Path) -> None:
    (round_folder / "manifest.json").unlink()
    with pytest.raises(DaggerError, match=r"000: expected a finished round; there is no manifest.json"):
        load_round(round_folder, load_contract(contract_path("peg")))


def test_round_of_another_contract_is_refused(round_folder: Path) -> None:
    lane = load_contract(contract_path("lane"))
    with pytest.raises(DaggerError, match=r"expected a round under contract .* \(lane\), found .* \(peg\)"):
        load_round(round_folder, lane)
    with pytest.raises(DaggerError, match="frames of different contracts do not mix"):
        read_rows(round_folder / "episodes/000000/bag", RowLayout(lane))


def test_episode_that_is_gone_is_named(round_folder: Path) -> None:
    contract = load_contract(contract_path("peg"))
    shutil.rmtree(round_folder / "episodes/000001")
    with pytest.raises(DaggerError, match=r"000001/bag/bag.mcap: expected the file that manifest.json names"):
        check_round(round_folder, contract)
    shutil.rmtree(round_folder / "episodes/000000")
    with pytest.raises(DaggerError, match="expected at least one finished episode, found none"):
        finish_round(round_folder, contract)


def test_graph_whose_policy_is_of_another_contract_does_not_start(tmp_path: Path) -> None:
    policy = weak_policy("lane", tmp_path / "pi")
    with pytest.raises(DaggerError, match="trained under another contract"):
        LockstepGraph(contract_path("peg"), rule="hg", round_index=1, policy=policy)
