from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, TASKS, contract_path, small_panel, weak_policy
from dagger_ros.contract import DaggerError, Label, Mode, RowLayout, Scores, load_contract
from dagger_ros.control import ControlTick
from dagger_ros.evaluation import (
    NotFiniteError,
    PanelResult,
    PanelRunner,
    RolloutKey,
    RolloutResult,
    Trace,
    against,
    check_result,
    load_panel,
    run_rollout,
    trace_path,
)
from dagger_ros.policy import Checkpoint, load_checkpoint, save_checkpoint
from dagger_ros.sim import Perturbation, load_plant, rollout
from dagger_ros.sim.experts import make_labeller
from dagger_ros.supervisor import Gate, make_rule

pytest.importorskip("torch")
from dagger_ros.learning import TrainingSettings, train

pytestmark = [pytest.mark.mujoco, pytest.mark.torch]
HEAD = "name: p\ndescription: x\n"
DELAYS_S = {"peg": 0.2, "lane": 0.4}
# The arm is slow enough for whatever the supervisor lets pass; this is older than that.
HARMFUL_DELAYS_S = {"peg": 0.3, "lane": 0.4}
# Episodes of demonstrations, then of what the first policy visits.
EPISODES = {"peg": (5, 15), "lane": (2, 1)}


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A usable policy for each task: demonstrations and one round of DAgger, without ROS."""
    folder = tmp_path_factory.mktemp("policies")
    for task in TASKS:
        contract = load_contract(contract_path(task))
        layout = RowLayout(contract)
        plant = load_plant(contract, contract_path(task))
        labelled: list[np.ndarray] = []
        policy = None
        for round_index, count in enumerate(EPISODES[task]):
            gate = Gate(contract, make_rule("dagger", round_index=round_index), auto_arm=True)
            control = ControlTick(layout, gate, make_labeller("scripted", contract), policy)
            for seed in range(count):
                rows, _ = rollout(plant, control, layout, seed=seed, ticks=contract.horizon_ticks)
                labelled.append(rows[rows["label_source"] == Label.EXPERT])
            rows = np.concatenate(labelled)
            settings = TrainingSettings(members=1, steps=1500)
            tensors = train(contract, rows["observation"], rows["expert_action"], settings, seed=0).tensors
            about = Checkpoint("pi", 0, contract.sha256, 0, layout.columns(), contract.action.dimensions, (), {})
            save_checkpoint(folder / task, about, tensors)
            policy = load_checkpoint(folder / task, contract)
    return {task: folder / task for task in TASKS}


def test_delayed_observations_are_measurably_worse(task: str, policies: dict[str, Path], tmp_path: Path) -> None:
    with PanelRunner(contract_path(task), workers=2) as runner:
        conditions = {"nominal": {}, "delayed": {"observation_delay_s": HARMFUL_DELAYS_S[task]}}
        result = runner.run(small_panel(8, **conditions), policies[task], tmp_path / "result")
    nominal, delayed = ([r for r in result.rollouts if r.condition == name] for name in ("nominal", "delayed"))
    assert [r.seed for r in nominal] == [r.seed for r in delayed]
    assert fmean(r.success for r in nominal) >= 0.25
    assert fmean(r.success for r in delayed) < fmean(r.success for r in nominal)
    worse = {"success": -1, "falls_per_lap": 1}[result.metric_name]
    assert worse * (fmean(r.metric for r in delayed) - fmean(r.metric for r in nominal)) > 0


def test_delayed_policy_is_still_gated(task: str, policies: dict[str, Path]) -> None:
    """Whatever the policy asks for, what is executed keeps the bounds and the rates of the contract."""
    contract = load_contract(contract_path(task))
    layout = RowLayout(contract)
    plant = load_plant(contract, contract_path(task), Perturbation(observation_delay_s=DELAYS_S[task]))
    gate = Gate(contract, make_rule("hg", round_index=1), auto_arm=True, needs_expert=False)
    control = ControlTick(layout, gate, None, load_checkpoint(policies[task], contract))
    lower, upper, rate = np.array([(d.lower, d.upper, d.acceleration_limit) for d in contract.action.dimensions_]).T
    for seed in range(3):
        rows, _ = rollout(plant, control, layout, seed=seed, ticks=contract.horizon_ticks)
        executed = rows["executed_action"]
        assert np.isfinite(executed).all()
        assert ((executed >= lower) & (executed <= upper)).all()
        steps = np.abs(np.diff(executed, axis=0, prepend=0.0))
        assert (steps <= rate * contract.timing.period_ns * 1e-9 + 1e-12).all()


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_panel_leaves_the_same_bytes_on_one_and_on_two_processes(policies: dict[str, Path], tmp_path: Path) -> None:
    for workers in (1, 2):
        with PanelRunner(contract_path("peg"), workers=workers) as runner:
            runner.run(small_panel(4, help="operator"), policies["peg"], tmp_path / str(workers))
    assert files(tmp_path / "1") == files(tmp_path / "2")
    check_result(tmp_path / "1", load_contract(contract_path("peg")))


def test_panel_leaves_the_same_bytes_on_a_ray_cluster(policies: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs the optional package ray")
    for engine in ("processes", "ray"):
        with PanelRunner(contract_path("peg"), workers=2, engine=engine) as runner:
            runner.run(small_panel(4, help="operator"), policies["peg"], tmp_path / engine)
    assert files(tmp_path / "processes") == files(tmp_path / "ray")


def test_panel_that_was_cut_short_goes_on_with_what_it_has(policies: dict[str, Path], tmp_path: Path) -> None:
    def stop_after_two() -> None:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt

    seen: list[int] = []
    with PanelRunner(contract_path("peg"), workers=1) as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(small_panel(4), policies["peg"], tmp_path / "cut", stop_after_two)
        assert not (tmp_path / "cut").exists()
        kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / ".cut.part/traces").iterdir()}
        assert len(kept) >= 2
    with PanelRunner(contract_path("peg"), workers=1) as runner:
        runner.run(small_panel(4), policies["peg"], tmp_path / "cut")
        runner.run(small_panel(4), policies["peg"], tmp_path / "whole")
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cut/traces").iterdir()}
    assert {name: after[name] for name in kept} == kept


def test_operator_helps_on_the_same_rollouts_and_is_counted(tmp_path: Path) -> None:
    policy = weak_policy("peg", tmp_path / "pi_000")
    with PanelRunner(contract_path("peg"), workers=2) as runner:
        alone = runner.run(small_panel(6), policy, tmp_path / "alone")
        helped = runner.run(small_panel(6, help="operator"), policy, tmp_path / "helped")
    assert helped.success_rate > alone.success_rate
    assert (alone.interventions == 0).all()
    for of_helped in helped.rollouts:
        assert (of_helped.takeovers > 0) == (of_helped.expert_ticks > 0)
    trace = Trace.read(trace_path(tmp_path / "helped", helped.rollouts[0].key))
    assert int((trace.rows["mode"] == Mode.EXPERT).sum()) == helped.rollouts[0].expert_ticks
    assert len(trace.scene) == len(trace.rows) + 1


class NotANumber:
    """A policy that fails in the middle."""

    def start_episode(self) -> None:
        self.calls = 0

    def act(self, observation: np.ndarray, out: np.ndarray, stamp_ns: int) -> Scores:
        self.calls += 1
        out[:] = np.nan if self.calls > 3 else 0.0
        return Scores(doubt=np.nan)


def test_policy_that_answers_nan_is_told_from_a_robot_that_sees_nothing() -> None:
    contract = load_contract(contract_path("peg"))
    about = Checkpoint("pi", 0, contract.sha256, 0, (), contract.action.dimensions, (), {}, weights_sha256="0")
    key = RolloutKey("plain", 1_000_000_000)
    result, _, _ = run_rollout(
        contract, load_plant(contract, contract_path("peg")), (about, NotANumber()), key, ticks=10
    )
    assert (result.not_finite, result.success, result.doubt) == (3, False, None)
    late = load_plant(contract, contract_path("peg"), Perturbation(observation_delay_s=0.2))
    result, _, _ = run_rollout(contract, late, None, key, ticks=3)
    assert result.not_finite == -1


def rollout_result(seed: int, success: bool, **more: Any) -> RolloutResult:
    settings = {
        "condition": "plain",
        "failure": "" if success else "jammed",
        "metric": float(success),
        "ticks": 10,
        "driven": 1.0,
        "clamped": 0.0,
        "doubt": 0.0,
        "expert_ticks": 0,
        "takeovers": 0,
    }
    return RolloutResult(seed=seed, success=success, **(settings | more))


def result(*outcomes: bool, **more: Any) -> PanelResult:
    rollouts = tuple(rollout_result(i, ok, **more) for i, ok in enumerate(outcomes))
    return PanelResult("p", "0" * 64, "1" * 64, "pi_000", "2" * 64, "success", rollouts)


def test_summary_has_wilsons_interval_and_the_failures() -> None:
    summary = result(*[True] * 27, *[False] * 3).summary()
    assert summary["success_rate"] == 0.9
    # Wilson (1927) for 27 of 30, as any table has it.
    assert summary["success_ci95"] == pytest.approx([0.744, 0.965], abs=5e-4)
    assert summary["failures"] == {"jammed": 3}
    assert summary["conditions"]["plain"] == {
        "n": 30, "success_rate": 0.9, "success_ci95": summary["success_ci95"]
    }  # fmt: skip


def test_policy_that_gave_nan_is_not_judged() -> None:
    with pytest.raises(
        NotFiniteError, match="NaN or infinity in 2 of 2 rollouts of panel p, first at tick 4 of plain-0"
    ):
        result(True, False, not_finite=4).check_finite()


def test_rollouts_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = result(True, False)
    (tmp_path / "rollouts.json").write_bytes(written.to_json())
    assert PanelResult.read(tmp_path) == written
    (tmp_path / "rollouts.json").write_text("[]")
    with pytest.raises(DaggerError, match=r"rollouts.json: expected the rollouts of a panel"):
        PanelResult.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contract_sha256": "9" * 64}, "the same contract for pi_000 and pi_000, got 111111111111 and 999999999999"),
        ({"panel_sha256": "9" * 64}, "the same panel"),
        ({"rollouts": ()}, "the same rollouts"),
    ],
)
def test_results_that_were_not_measured_alike_are_not_compared(change: dict[str, Any], message: str) -> None:
    first = result(*[True] * 8)
    with pytest.raises(DaggerError, match=message):
        against(first, replace(first, **change), maximize=True)


def test_result_that_was_edited_is_named(policies: dict[str, Path], tmp_path: Path) -> None:
    contract = load_contract(contract_path("peg"))
    with PanelRunner(contract_path("peg"), workers=1) as runner:
        runner.run(small_panel(2), policies["peg"], tmp_path / "r")
    path = tmp_path / "r/rollouts.json"
    text = path.read_text()
    path.write_text(text.replace('"takeovers": 0', '"takeovers": 1', 1))
    with pytest.raises(DaggerError, match=r"plain-1000000000.npz: expected the rollout that rollouts.json has"):
        check_result(tmp_path / "r", contract)
    path.write_text(text)
    changed = small_panel(2).model_copy(update={"horizon_s": 1.0})
    (tmp_path / "r/panel.json").write_text(changed.model_dump_json())
    with pytest.raises(DaggerError, match=r"expected rollouts of panel small .*; take another folder"):
        check_result(tmp_path / "r", contract)
    with (
        PanelRunner(contract_path("peg"), workers=1) as runner,
        pytest.raises(DaggerError, match=r"expected rollouts of panel small"),
    ):
        runner.run(changed, policies["peg"], tmp_path / "r")
    trace_path(tmp_path / "r", RolloutKey("plain", 1_000_000_001)).write_bytes(b"PK")
    with pytest.raises(DaggerError, match="expected the trace of a rollout"):
        Trace.read(trace_path(tmp_path / "r", RolloutKey("plain", 1_000_000_001)))


def test_panel_for_another_metric_or_a_longer_horizon_is_refused() -> None:
    contract = load_contract(contract_path("peg"))
    with pytest.raises(DaggerError, match="it is for metric falls_per_lap; contract peg has success"):
        small_panel(8).model_copy(update={"metric": "falls_per_lap"}).check(contract)
    with pytest.raises(DaggerError, match="horizon_s: expected at most the 6 s of contract peg, got 9"):
        small_panel(8).model_copy(update={"horizon_s": 9.0}).check(contract)


def test_engine_that_is_not_there_is_named() -> None:
    with pytest.raises(DaggerError, match="engine: expected one of processes, ray, got 'spark'"):
        PanelRunner(contract_path("peg"), workers=1, engine="spark")
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(DaggerError, match="expected Ray for --engine ray, and it is not installed"):
            PanelRunner(contract_path("peg"), workers=1, engine="ray")


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "panels").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_panels_are_valid(path: Path) -> None:
    assert load_panel(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: p", "first_seed: expected this key; found nothing"),
        (HEAD + "first_seed: 5\ncount: 3\nconditions: {a: {}}", "first_seed: expected a number >= 1e"),
        (
            HEAD + "first_seed: 1000000000\ncount: 3\nconditions: {a: {noise: 1.0}}",
            "conditions.a: expected only observation_delay_s",
        ),
        (HEAD + "first_seed: 1000000000\ncount: 3\nconditions: {}", "conditions: "),
        (HEAD + "first_seed: 1000000000\ncount: 0\nconditions: {a: {}}", "count: expected a number >= 1; found 0"),
    ],
)
def test_wrong_panel_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DaggerError, match=message):
        load_panel(tmp_path / "p.yaml")
    with pytest.raises(DaggerError, match=r"none.yaml: expected a panel \(YAML\) here"):
        load_panel(tmp_path / "none.yaml")


def test_workers_end_when_their_runner_is_killed(policies: dict[str, Path], tmp_path: Path) -> None:
    script = (
        "import multiprocessing, os, signal, sys\n"
        "from pathlib import Path\n"
        "from dagger_ros.evaluation import Panel, PanelRunner\n"
        "if __name__ == '__main__':\n"
        "    panel = Panel(name='p', description='x', first_seed=1_000_000_000, count=1, conditions={'a': {}})\n"
        "    runner = PanelRunner(Path(sys.argv[1]), workers=1)\n"
        "    runner.run(panel, sys.argv[2], Path(sys.argv[3]))\n"
        "    print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = policies["peg"].parent / "killed.py"
    path.write_text(script)
    # Its output ends when nobody holds it open any more: neither the runner nor its workers.
    killed = subprocess.run(
        [sys.executable, str(path), str(contract_path("peg")), str(policies["peg"]), str(tmp_path / "r")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.split()
