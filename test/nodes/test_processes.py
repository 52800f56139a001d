"""Every node its own process, in real time and in lockstep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import contract_path, weak_policy
from dagger_ros.cli import main
from dagger_ros.contract import DURATIONS, NEVER_NS, Act, Label, Mode, RowLayout, load_contract
from dagger_ros.control import replay
from dagger_ros.dataset import load_round, read_episode, read_rows
from dagger_ros.supervisor import Gate, Response, make_rule, response_bits

pytest.importorskip("rclpy")
from dagger_ros.msg import GateDecision, OperatorAct, SimTick
from dagger_ros.nodes.qos import ACT_QOS, GraphQos
from graph import PATIENCE_S, Graph, running_graph

QOS = GraphQos(lockstep=False)
OBJECTIONS = response_bits(*(response for response in Response if response is not Response.NOTE))
pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.slow]


def corrected_episodes(graph: Graph) -> set[int]:
    """Fills, while the graph runs, with the episodes in which the expert took over."""
    corrected: set[int] = set()
    graph.node.create_subscription(
        GateDecision,
        "supervisor/decision",
        lambda d: corrected.add(d.episode) if d.mode == Mode.EXPERT and d.intervention > 0 else None,
        QOS.record,
    )
    return corrected


@pytest.mark.parametrize("lockstep", [False, True], ids=["real_time", "lockstep"])
def test_expert_drives_to_success_through_the_processes(lockstep: bool, ros_domain: int, tmp_path: Path) -> None:
    contract, round_folder = load_contract(contract_path("peg")), tmp_path / "round"
    common = {"contract": contract_path("peg"), "lockstep": lockstep}
    sim_time = {"use_sim_time": True}
    successes: list[Any] = []
    modes: set[int] = set()
    with running_graph(ros_domain, tmp_path) as processes:
        processes.node.create_subscription(
            SimTick,
            "sim/tick",
            lambda t: successes.append(t) if t.done and t.success else None,
            QOS.record,
        )
        processes.node.create_subscription(GateDecision, "supervisor/decision", lambda d: modes.add(d.mode), QOS.record)
        processes.start("mujoco_bridge", **common)
        processes.start("supervisor", **common, **sim_time, rule="bc", round=0, auto_arm=True, needs_policy=False)
        processes.start("expert_label", **common, **sim_time)
        processes.wait_for(lambda: processes.has_publishers("sim/tick", "supervisor/decision", "expert/action"))
        processes.start("aggregator", **common, out=round_folder, round=0, rule="bc", simulation_seed=3)
        processes.wait_for(lambda: len(successes) >= 2)
    assert modes >= {int(Mode.EXPERT)}
    assert load_round(round_folder, contract).episodes[0].seed == 3  # the aggregator ended with a manifest
    info = read_episode(round_folder / "episodes/000000")
    rows = read_rows(round_folder / "episodes/000000/bag", RowLayout(contract))
    assert info.seed == 3
    assert info.success
    assert (rows["label_source"] == Label.EXPERT).sum() > 10
    # A recorded good run, decided again: nothing is refused or clamped that was not then.
    again = replay(rows, Gate(contract, make_rule("bc", round_index=0), auto_arm=True))
    assert not (again["reasons"] & np.uint64(OBJECTIONS) & ~rows["reasons"]).any()


def test_operator_takes_over_in_one_real_time_episode_after_the_other(
    ros_domain: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = {"contract": contract_path("peg"), "use_sim_time": True}
    policy = weak_policy("peg", tmp_path / "pi_000")
    with running_graph(ros_domain, tmp_path) as processes:
        corrected = corrected_episodes(processes)
        processes.start("mujoco_bridge", contract=contract_path("peg"))
        processes.start("supervisor", **common, rule="hg", auto_arm=True)
        processes.start("expert_label", **common, expert="operator")
        processes.start("policy", **common, policy=policy)
        processes.wait_for(
            lambda: processes.has_publishers("sim/tick", "supervisor/decision", "expert/action", "policy/action")
        )
        processes.start("aggregator", **common, out=tmp_path / "rounds/001", simulation_seed=0)
        processes.wait_for(lambda: {0, 1, 2} <= corrected)  # so that the first two are whole
    episodes = load_round(tmp_path / "rounds/001", load_contract(contract_path("peg"))).episodes
    for entry in episodes[:2]:
        bag = tmp_path / "rounds/001/episodes" / f"{entry.episode:06d}" / "bag"
        rows = read_rows(bag, RowLayout(load_contract(contract_path("peg"))))
        assert (rows["seed"] == entry.seed).all()
        assert {Mode.POLICY, Mode.EXPERT} <= {Mode(mode) for mode in rows["mode"]}
        assert all(np.isfinite(rows[name]).all() for name in DURATIONS if name != "inference_s")
        assert (np.isfinite(rows["inference_s"]) == (rows["policy_stamp_ns"] != NEVER_NS)).all()
    main(["inspect", str(tmp_path), "--contract", str(contract_path("peg"))])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for stage in ("inference", "gate", "command", "total"):
        (line,) = [words for words in lines if words[:1] == [stage]]
        assert 0 < float(line[-3]) <= float(line[-1])


def test_simulated_person_at_the_pad_arms_corrects_and_gives_back(
    ros_domain: int, patient: Path, tmp_path: Path
) -> None:
    contract = load_contract(patient)
    common = {"contract": patient, "use_sim_time": True}
    policy = weak_policy("peg", tmp_path / "pi_000", contract=contract)
    newest = [-1]
    released: set[int] = set()  # episodes in which the deadman was let go

    def note_decision(decision: Any) -> None:
        newest[0] = max(newest[0], decision.episode)

    def note_act(act: Any) -> None:
        if act.act == Act.RELEASE:
            released.add(newest[0])

    with running_graph(ros_domain, tmp_path) as processes:
        corrected = corrected_episodes(processes)
        processes.node.create_subscription(GateDecision, "supervisor/decision", note_decision, QOS.record)
        processes.node.create_subscription(OperatorAct, "expert/act", note_act, ACT_QOS)
        processes.start("mujoco_bridge", contract=patient)
        processes.start("supervisor", **common, rule="hg")
        processes.start("expert_label", **common, expert="joystick", operator_id="simulated")
        processes.start("simulated_operator", **common)
        processes.start("policy", **common, policy=policy)
        processes.wait_for(
            lambda: processes.has_publishers("sim/tick", "supervisor/decision", "expert/action", "policy/action", "joy")
        )
        processes.start("aggregator", **common, out=tmp_path / "round", simulation_seed=0)
        processes.wait_for(lambda: len(corrected) >= 3 and sum(0 <= e < newest[0] for e in released) >= 2)
    # An act at the border of two episodes is in neither, and the last one is not whole.
    whole = [tmp_path / f"round/episodes/{episode:06d}" for episode in range(max(corrected))]
    infos = [read_episode(folder) for folder in whole]
    rows = np.concatenate([read_rows(folder / "bag", RowLayout(contract)) for folder in whole])
    assert {"takeover", "release", "resume"} <= {act["act"] for info in infos for act in info.acts}
    assert (rows["label_source"] == Label.EXPERT).sum() > 5
    assert {info.operator_id for info in infos} == {"simulated"}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_node_shares_no_memory_whose_locks_would_outlive_it(ros_domain: int, tmp_path: Path) -> None:
    with running_graph(ros_domain, tmp_path) as processes:
        processes.start("mujoco_bridge", contract=contract_path("peg"))
        processes.wait_for(lambda: processes.has_publishers("sim/tick"))
        maps = Path(f"/proc/{processes.processes['mujoco_bridge'].pid}/maps").read_text()
    assert "/dev/shm/fast" not in maps  # fastdds_, fastrtps_


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("supervisor", {}, "expected the parameter 'contract'"),
        ("supervisor", {"contract": "nowhere.yaml"}, "nowhere.yaml: expected a task contract"),
        ("supervisor", {"contract": contract_path("peg"), "rule": "magic"}, "rule: expected one of bc, dagger, hg"),
        ("policy", {"contract": contract_path("peg"), "policy": "nowhere"}, "nowhere: expected a policy here"),
        ("expert_label", {"contract": contract_path("peg"), "expert": "me"}, "expert: expected one of scripted"),
        ("aggregator", {"contract": contract_path("peg")}, "expected the parameter 'out'"),
        (
            "aggregator",
            {"contract": contract_path("peg"), "out": __file__},
            "expected a folder for the parameter 'out'",
        ),
        ("policy", {"contract": contract_path("peg")}, "expected the parameter 'policy'"),
        ("supervisor", {"contract": contract_path("peg"), "round": "x"}, "round"),
        ("mujoco_bridge", {"contract": contract_path("peg"), "perturbation.friction": -1.0}, "perturbation friction"),
        ("supervisor", {"contract": contract_path("peg"), "cpu_affinity": "all"}, "cpu_affinity: expected cores"),
        ("policy", {"contract": contract_path("peg"), "realtime_priority": 100}, "realtime_priority: expected 0"),
    ],
)
def test_node_with_a_wrong_parameter_says_so_and_exits_with_2(
    name: str, parameters: dict[str, object], message: str, ros_domain: int
) -> None:
    options = [item for key, value in parameters.items() for item in ("-p", f"{key}:={value}")]
    result = subprocess.run(
        [sys.executable, "-m", f"dagger_ros.nodes.{name}", "--ros-args", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode == 2


LAUNCH = """
import os, subprocess, sys
os.environ["DAGGER_ROS_LAUNCHER"] = str(os.getpid())
node = subprocess.Popen([sys.executable, "-m", "dagger_ros.nodes.mujoco_bridge", *sys.argv[1:]])
print(node.pid, flush=True)
node.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent ended")
def test_node_ends_with_a_launch_that_was_killed(ros_domain: int, tmp_path: Path) -> None:
    with running_graph(ros_domain, tmp_path) as processes:
        arguments = ["--ros-args", "-p", f"contract:={contract_path('peg')}"]
        processes.start_command("launch", [sys.executable, "-c", LAUNCH, *arguments])
        processes.wait_for(lambda: processes.has_publishers("sim/tick"))
        node = Path("/proc") / (tmp_path / "launch.log").read_text().split()[0]
        assert node.exists()
        processes.kill("launch")
        processes.wait_for(lambda: not node.exists())
