"""The benchmark against `imitation`: what counts as time, which policies its tables show, what the peer is asked."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import ROOT, contract_path

FOLDER = ROOT / "benchmarks" / "peers" / "imitation"
VENV = ROOT / "build" / "peers" / "imitation" / "venv"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)


def row(method: str, labels: int, success: float, seed: int = 0) -> Any:
    from figures import Row
    from job import Stage

    return Row(method, seed, Stage("policy", labels, wall_s=labels / 10, cpu_s=labels / 20), 30, success, (0.1, 0.9))


def test_time_is_collecting_and_training_and_no_evaluation() -> None:
    pytest.importorskip("rclpy", reason="the loop goes through the ROS graph")
    from ours import Stopwatch

    now = [0.0]
    watch = Stopwatch(Path("run"), wall=lambda: now[0], cpu=lambda: now[0] / 2)
    for policy in ("pi_000", "pi_001"):
        for name, seconds in (("demonstrations", 3.0), ("training on 5 labels", 4.0), ("round 0: panel nominal", 50.0)):
            with watch.stage(name, 1) as advance:
                advance(1)
                now[0] += seconds
            now[0] += 1.0  # between two stages: bags are read, a policy is written; after a panel, policies compared
        watch.round_done(SimpleNamespace(policy=policy, labels_total=5))  # type: ignore[arg-type]
    assert [(s.policy, s.wall_s, s.cpu_s) for s in watch.stages] == [
        ("run/policies/pi_000", 9.0, 4.5),
        ("run/policies/pi_001", 18.0, 9.0),
    ]


def test_tables_show_the_first_policy_with_enough_labels_and_the_first_good_one() -> None:
    from figures import Figures

    rows = (
        row("ours", 100, 0.5),
        row("ours", 500, 0.9),
        row("ours", 500, 1.0, seed=1),
        row("peer", 700, 0.1),
        row("peer", 9000, 1.0),
        row("peer", 5000, 0.95),
        row("peer", 600, 0.0),
    )
    figures = Figures("peg", "nominal", "machine", 500, rows, {"ours": 1e6, "peer": 1e5})
    assert [(r.method, r.seed, r.stage.labels) for r in figures.at_labels()] == [
        ("ours", 0, 500),
        ("ours", 1, 500),
        ("peer", 0, 600),
    ]
    assert [(r.method, r.seed, r.stage.labels) for r in figures.at_good()] == [
        ("ours", 0, 500),
        ("ours", 1, 500),
        ("peer", 0, 5000),
    ]
    assert "1,000,000" in figures.text()
    assert re.search(r"peer +0 +5000 +500\.0 +250\.0 +95 % \(10-90\)", figures.text())


@pytest.mark.parametrize("good_from", [0, 1, 4, 7])
def test_first_good_policy_is_found_with_few_panels(good_from: int) -> None:
    from figures import first_good

    asked: list[int] = []

    def success(stage: Any) -> float:
        asked.append(stage)
        return float(stage >= good_from)

    stages: Any = range(8)
    assert first_good(stages, success) == good_from
    assert len(asked) <= 4
    assert first_good(range(good_from), success) is None if good_from else True  # type: ignore[arg-type]


def test_a_job_comes_to_the_peer_as_it_was_asked(tmp_path: Path) -> None:
    from job import Job

    job = Job("dagger", "peg.yaml", 3, 500, [1, 2], training={"n_batches": 4}, hidden=[256, 256], scaled=True)
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_every_version_of_the_peer_is_pinned() -> None:
    lines = [line for line in (FOLDER / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9.]+", line) for line in lines)
    assert "imitation==1.0.1" in lines


def test_a_peer_that_fails_is_said_with_the_end_of_its_output(tmp_path: Path) -> None:
    from job import Job
    from peer_venv import PeerVenv

    from dagger_ros.contract import DaggerError

    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho no such demonstration >&2\nexit 3\n")
    python.chmod(0o755)
    (tmp_path / "venv" / "requirements.txt").write_bytes((FOLDER / "requirements.txt").read_bytes())
    with pytest.raises(DaggerError, match=r"(?s)the peer failed; the end of .*log.txt:.*no such demonstration"):
        PeerVenv(tmp_path, ROOT).run(Job("bc", "peg.yaml", 0), tmp_path / "job")


@pytest.mark.slow
@pytest.mark.mujoco
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_peer_learns_on_our_environment_and_its_policy_is_one_of_ours(tmp_path: Path) -> None:
    if not (VENV / "requirements.txt").is_file():
        pytest.skip(f"needs the peer's virtual environment in {VENV}, which the benchmark makes (1.9 GB)")
    from job import Job
    from peer_venv import PeerVenv

    from dagger_ros.contract import NEVER_NS, load_contract
    from dagger_ros.policy import load_policy

    job = Job(
        "dagger",
        str(contract_path("peg")),
        seed=0,
        labels=200,
        demonstrations=[100_000, 100_001, 100_002],
        out=str(tmp_path),
        training={"n_batches": 5},
        rounds={"rollout_round_min_episodes": 1, "rollout_round_min_timesteps": 1},
        hidden=[16],
        scaled=True,
        policy_drives=True,
    )
    stages = PeerVenv(VENV.parent, ROOT).stages(job, tmp_path)
    # The same demonstrations as those of `dagger-ros run --seed 0`, and one episode more.
    assert stages[0].labels == 127
    assert 127 < stages[1].labels <= 247
    about, policy = load_policy(stages[-1].policy, load_contract(contract_path("peg")))
    out = np.zeros(3)
    policy.act(np.zeros(24), out, NEVER_NS)
    assert (np.abs(out) <= 0.24).all()
    assert about.name == "round_001"
