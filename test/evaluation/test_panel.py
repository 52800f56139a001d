from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, TASKS, contract_path
from dagger_ros.contract import DaggerError, Label, RowLayout, load_contract
from dagger_ros.control import ControlTick
from dagger_ros.evaluation import Panel, PanelResult, PanelRunner, load_panel
from dagger_ros.evaluation.panel import RolloutResult
from dagger_ros.policy import Checkpoint, load_checkpoint, save_checkpoint
from dagger_ros.sim import Perturbation, load_plant, rollout
from dagger_ros.sim.experts import make_labeller
from dagger_ros.supervisor import Gate, make_rule

pytest.importorskip("torch")
from dagger_ros.learning import TrainingSettings, train

pytestmark = [pytest.mark.mujoco, pytest.mark.torch]
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


def panel(count: int = 8, **perturbation: float) -> Panel:
    return Panel(name="test", first_seed=1_000_000_000, count=count, perturbation=perturbation)


def test_delayed_observations_are_measurably_worse(task: str, policies: dict[str, Path]) -> None:
    results = []
    for settings in ({}, {"observation_delay_s": HARMFUL_DELAYS_S[task]}):
        with PanelRunner(contract_path(task), panel(**settings), workers=2) as runner:
            results.append(runner.run(policies[task]))
    nominal, delayed = results
    assert nominal.success_rate >= 0.25
    assert delayed.success_rate < nominal.success_rate
    worse = {"success": -1, "falls_per_lap": 1}[nominal.metric_name]
    assert worse * (delayed.metric_mean - nominal.metric_mean) > 0


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


def test_panel_gives_the_same_on_one_and_on_two_processes(policies: dict[str, Path]) -> None:
    results = []
    for workers in (1, 2):
        with PanelRunner(contract_path("peg"), panel(4), workers=workers) as runner:
            results.append(runner.run(policies["peg"]))
    assert results[0] == results[1]


def result(*outcomes: bool) -> PanelResult:
    rollouts = [
        RolloutResult(i, ok, "" if ok else "jammed", float(ok), ticks=10, driven=1.0, clamped=0.0, doubt=0.0)
        for i, ok in enumerate(outcomes)
    ]
    return PanelResult("p", "0" * 64, "success", tuple(rollouts))


def test_summary_has_wilsons_interval_and_the_failures() -> None:
    summary = result(*[True] * 27, *[False] * 3).summary()
    assert summary["success_rate"] == 0.9
    # Wilson (1927) for 27 of 30, as any table has it.
    assert summary["success_ci95"] == pytest.approx([0.744, 0.965], abs=5e-4)
    assert summary["failures"] == {"jammed": 3}


def test_rollouts_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = result(True, False)
    written.write(tmp_path)
    assert PanelResult.read(tmp_path) == written
    (tmp_path / "rollouts.json").write_text("[]")
    with pytest.raises(DaggerError, match=r"rollouts.json: expected the rollouts of a panel"):
        PanelResult.read(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "config" / "panels").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_panels_are_valid(path: Path) -> None:
    assert load_panel(path).name == path.stem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: p", "first_seed: expected this key; found nothing"),
        ("name: p\nfirst_seed: 5\ncount: 3\nperturbation: {}", "first_seed: expected a number >= 1e"),
        (
            "name: p\nfirst_seed: 1000000000\ncount: 3\nperturbation: {noise: 1.0}",
            "perturbation: expected only observation_delay_s",
        ),
        ("name: p\nfirst_seed: 1000000000\ncount: 0\nperturbation: {}", "count: expected a number >= 1; found 0"),
    ],
)
def test_wrong_panel_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(DaggerError, match=message):
        load_panel(tmp_path / "p.yaml")
    with pytest.raises(DaggerError, match=r"none.yaml: expected a panel \(YAML\) here"):
        load_panel(tmp_path / "none.yaml")


def test_workers_end_when_their_runner_is_killed(policies: dict[str, Path]) -> None:
    script = (
        "import multiprocessing, os, signal, sys\n"
        "from pathlib import Path\n"
        "from dagger_ros.evaluation import Panel, PanelRunner\n"
        "if __name__ == '__main__':\n"
        "    panel = Panel(name='p', first_seed=1_000_000_000, count=1, perturbation={})\n"
        "    runner = PanelRunner(Path(sys.argv[1]), panel, workers=1)\n"
        "    runner.run(Path(sys.argv[2]))\n"
        "    print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = policies["peg"].parent / "killed.py"
    path.write_text(script)
    # Its output ends when nobody holds it open any more: neither the runner nor its workers.
    killed = subprocess.run(
        [sys.executable, str(path), str(contract_path("peg")), str(policies["peg"])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed.stdout.split()
