"""The loop, end to end and through the graph, in small."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TASKS, contract_path, small_panel
from dagger_ros.cli import main
from dagger_ros.contract import DaggerError, RowLayout, load_contract
from dagger_ros.dataset import read_rows
from dagger_ros.supervisor import RuleOptions

pytest.importorskip("rclpy")
pytest.importorskip("torch")
from dagger_ros.dagger import RoundResult, RunConfig, run
from dagger_ros.evaluation import Panel
from dagger_ros.learning import TrainingSettings
from dagger_ros.nodes.lockstep import collect_round
from dagger_ros.verify import verify

pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.torch, pytest.mark.usefixtures("ros_domain")]

PANEL = small_panel(count=3)
ASSISTED = small_panel(count=3, name="helped", help="operator")
FINAL = small_panel(count=2, name="final", first_seed=2_000_000_000)
QUICK = TrainingSettings(members=1, hidden=(32,), steps=150)
RULES = {"peg": "hg", "lane": "dagger"}


class Notes:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.rounds: list[RoundResult] = []
        self.stages: list[str] = []

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        self.stages.append(name)
        done: list[int] = []
        yield done.append
        assert sum(done) == total

    def round_done(self, result: RoundResult) -> None:
        self.rounds.append(result)


def small_run(
    out: Path, task: str = "peg", *, resume: bool = False, panels: Sequence[Panel] = (PANEL, ASSISTED), **config: Any
) -> tuple[dict[str, Any], Notes]:
    settings = {
        "rule": RULES[task],
        "rounds": 1,
        "seed": 0,
        "patience": 0,
        "demonstrations": 1,
        "episodes": 1,
        "training": QUICK,
    }
    notes = Notes()
    result = run(
        RunConfig(**(settings | config)),
        contract_path(task),
        out,
        panels,
        FINAL,
        collect=collect_round,
        progress=notes,
        resume=resume,
        workers=1,
        pictures=False,
    )
    return result, notes


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished peg run; tests work on copies."""
    out = tmp_path_factory.mktemp("runs") / "peg"
    small_run(out)
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("task", TASKS)
def test_same_command_twice_gives_the_same_bytes(task: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        small_run(tmp_path / name, task)
    first, second = files(tmp_path / "a"), files(tmp_path / "b")
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []


def test_run_leaves_the_tree_of_the_design(finished: Path) -> None:
    assert {
        "config.yaml",
        "contract.yaml",
        "result.json",
        "report/index.html",
        "rounds/000/manifest.json",
        "rounds/000/episodes/000000/episode.json",
        "rounds/000/episodes/000000/bag/metadata.yaml",
        "rounds/000/episodes/000000/bag/bag.mcap",
        "rounds/001/manifest.json",
        "policies/pi_000/policy.json",
        "policies/pi_001/weights.safetensors",
        "panels/pi_001/small/rollouts.json",
        "panels/pi_001/small/panel.json",
        "panels/pi_001/small/traces/plain-1000000000.npz",
        "panels/pi_001/helped/rollouts.json",
    } <= files(finished).keys()


def test_result_has_the_schema_that_it_names(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text())
    assert list(result) == [
        "schema",
        "task",
        "rule",
        "seed",
        "contract_sha256",
        "rounds",
        "recommended",
        "final",
        "interventions",
        "stop",
    ]
    assert result["schema"] == "dagger_ros.result/2"
    assert (result["final"]["name"], result["final"]["n"]) == ("final", 2)
    assert result["interventions"]["panel"] == "helped"
    assert len(result["interventions"]["means"]) == 2
    assert [r["policy"] for r in result["rounds"]] == ["pi_000", "pi_001"]
    for round_ in result["rounds"]:
        assert set(round_) == {
            "round",
            "policy",
            "labels_new",
            "labels_total",
            "takeovers",
            "context_switches",
            "help_requests",
            "expert_ticks",
            "policy_ticks",
            "intervention_rate",
            "panel",
            "panels",
            "against_best",
            "shift",
        }
        assert list(round_["panels"]) == ["helped"]
        assert round_["panel"]["n"] == PANEL.count
        low, high = round_["panel"]["success_ci95"]
        assert 0 <= low <= round_["panel"]["success_rate"] <= high <= 1
    assert result["stop"]["reason"] == "1 of 1 rounds done"


def test_finished_run_is_resumed_without_doing_anything_again(copy: Path) -> None:
    before = files(copy)
    _, notes = small_run(copy, resume=True)
    assert notes.stages == []
    assert files(copy) == before


@pytest.mark.parametrize("lost", ["panels/pi_001", "policies/pi_001", "rounds/001"])
def test_interrupted_run_resumes_to_the_same_bytes(copy: Path, lost: str) -> None:
    expected = files(copy)
    order = ["rounds/001", "policies/pi_001", "panels/pi_001"]
    for name in order[order.index(lost) :]:
        shutil.rmtree(copy / name)
    (copy / "result.json").unlink()
    small_run(copy, resume=True)
    assert files(copy) == expected


def test_episodes_of_an_interrupted_round_are_kept(copy: Path) -> None:
    for name in ("rounds/001", "policies/pi_001", "panels/pi_001"):
        shutil.rmtree(copy / name)
    part = copy / "rounds/.001.part/episodes/000000"
    part.mkdir(parents=True)
    (part / "what_the_robot_did").write_text("dear")
    small_run(copy, resume=True)
    assert (copy / "rounds/001.interrupted.0/episodes/000000/what_the_robot_did").read_text() == "dear"


def test_finished_run_takes_more_rounds(copy: Path) -> None:
    result, notes = small_run(copy, resume=True, rounds=2)
    assert [r.policy for r in notes.rounds] == ["pi_000", "pi_001", "pi_002"]
    assert result["rounds"][-1]["round"] == 2


def refused(copy: Path, message: str, **arguments: Any) -> None:
    before = files(copy)
    with pytest.raises(DaggerError, match=message):
        small_run(copy, **arguments)
    assert files(copy) == before


def test_folder_with_another_run_is_refused(copy: Path) -> None:
    refused(copy, "expected a folder that is new or empty; give another --out, or --resume")
    refused(copy, "this is another run.*\n  seed: the run has 0, you asked for 1", resume=True, seed=1)
    refused(copy, "contract_sha256: the run has", resume=True, task="lane")


def test_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("dear")
    with pytest.raises(DaggerError, match=r"run: expected a folder that is new or empty.*; it is a file"):
        small_run(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "dear"


def test_fewer_rounds_than_the_run_has_are_refused(copy: Path) -> None:
    small_run(copy, resume=True, rounds=2)
    refused(copy, "expected at least the 2 rounds that the run has, got rounds 1", resume=True, rounds=1)


def test_round_without_a_manifest_is_refused(copy: Path) -> None:
    (copy / "rounds/001/manifest.json").unlink()
    refused(copy, "expected a finished round; there is no manifest.json", resume=True)


def test_policy_that_was_changed_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "panels/pi_001")
    weights = copy / "policies/pi_001/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    refused(copy, "the file was changed or cut short", resume=True)


def test_run_that_nobody_touched_is_as_it_was_written(copy: Path) -> None:
    found = dict(verify(copy))
    assert sorted(str(path.relative_to(copy)) for path in found) == [
        *(f"panels/{f.parent.name}/{f.name}" for f in sorted((copy / "panels").glob("*/*")) if f.is_dir()),
        "policies/pi_000",
        "policies/pi_001",
        "rounds/000",
        "rounds/001",
    ]
    assert set(found.values()) == {""}


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("tamper", "wrong", "message"),
    [
        (lambda c: flip(c / "rounds/001/episodes/000000/bag/bag.mcap"), {"rounds/001"}, "gone or changed"),
        (
            lambda c: edit(c / "rounds/000/manifest.json", lambda m: m["episodes"][0].update(expert_labels=7)),
            {"rounds/000", "policies/pi_000", "policies/pi_001"},
            "episode 0, expert_labels: the manifest says 7, its bag and episode.json say ",
        ),
        (
            lambda c: edit(c / "rounds/001/manifest.json", lambda m: m["episodes"].pop()),
            {"rounds/001", "policies/pi_001"},
            "expected every finished episode, but ",
        ),
        (
            lambda c: shutil.copytree(c / "policies/pi_001", c / "policies/pi_000", dirs_exist_ok=True),
            {"rounds/001"},
            "was driven by pi_000 with weights ",
        ),
        (lambda c: flip(c / "policies/pi_001/weights.safetensors"), {"policies/pi_001"}, "changed or cut short"),
        (
            lambda c: (c / "panels/pi_000/small/rollouts.json").write_text("{"),
            {"panels/pi_000/small"},
            "expected the rollouts of a panel",
        ),
        (lambda c: (c / "rounds/001/manifest.json").unlink(), {"rounds/001", "policies/pi_001"}, "interrupted"),
    ],
)
def test_what_was_changed_is_named(
    tamper: Callable[[Path], object], wrong: set[str], message: str, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tamper(copy)
    assert {str(path.relative_to(copy)) for path, problem in verify(copy) if problem} == wrong
    with pytest.raises(SystemExit) as status:
        main(["verify", str(copy)])
    assert status.value.code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.out.count("not as it was written") == len(wrong)
    assert f"{9 - len(wrong)} of 9 parts are as they were written" in said.out


def test_folder_without_a_run_is_not_verified(copy: Path) -> None:
    shutil.rmtree(copy / "rounds")
    with pytest.raises(DaggerError, match="expected the folder of a run, with rounds/000; there is none"):
        list(verify(copy))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rounds": 0}, "rounds: expected a whole number >= 1, got 0"),
        ({"rule": "magic"}, "rule: expected one of bc, dagger, hg"),
        ({"beta": "cubic"}, "beta: expected one of"),
        ({"beta": "linear"}, "beta: expected only with rule dagger, got linear with rule hg"),
        ({"budget": 0.1}, "budget: expected only with rule thrifty, got 0.1 with rule hg"),
        ({"expert_noise": 0.1, "rule": "safe"}, "expert_noise: expected only with rule lazy, got 0.1 with rule safe"),
        ({"budget": 0.0, "rule": "thrifty"}, "budget: expected a share of the policy's ticks between 0 and 1, got 0"),
        ({"resume": True}, "expected the folder of a run to resume; there is none"),
        ({"seed": -1}, "seed: expected"),
        ({"episodes": 5000}, "episodes: expected at most 1000"),
        ({"max_labels": 0}, "max_labels: expected"),
        (
            {"patience": 2},
            "expected at least 6 rollouts to tell whether a policy is better, got 3; take a larger panel",
        ),
        ({"patience": -1}, "patience: expected a whole number >= 0, got -1"),
        ({"panels": ()}, "panels: expected at least one, each name once; got"),
        ({"panels": (PANEL, PANEL)}, "panels: expected at least one, each name once; got small, small"),
    ],
)
def test_impossible_settings_are_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DaggerError, match=message):
        small_run(tmp_path / "run", **config)
    assert not (tmp_path / "run").exists()


def test_run_learns_from_no_more_labels_than_asked_for_and_stops_there(tmp_path: Path) -> None:
    result, _ = small_run(tmp_path / "run", rounds=5, max_labels=10)
    assert len(result["rounds"]) == 1
    assert result["rounds"][0]["labels_new"] > 10
    assert result["rounds"][0]["labels_total"] == 10
    assert result["stop"]["reason"] == "the 10 labels asked for were reached"


def test_run_stops_when_nothing_improves_and_goes_on_when_told_to(tmp_path: Path) -> None:
    panel = small_panel(count=6)
    result, _ = small_run(tmp_path / "run", rounds=4, patience=1, panels=[panel])
    assert result["stop"]["reason"].startswith("no credible improvement over pi_000 for 1 rounds")
    assert len(result["rounds"]) == 2
    assert result["rounds"][1]["against_best"]["policy"] == "pi_000"
    result, _ = small_run(tmp_path / "run", rounds=2, patience=0, panels=[panel], resume=True)
    assert result["stop"]["reason"] == "2 of 2 rounds done"


def test_run_starts_from_the_demonstrations_of_another(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    small_run(out, demonstrations=None, start_from=finished)
    assert files(out / "rounds/000") == files(finished / "rounds/000")
    assert files(out / "policies/pi_001") == files(finished / "policies/pi_001")
    small_run(out, demonstrations=None, start_from=finished, resume=True)
    with pytest.raises(DaggerError, match=r"start_from: the run has .*, you asked for None"):
        small_run(out, resume=True)
    with pytest.raises(DaggerError, match="expected no number of demonstrations with it"):
        small_run(tmp_path / "other", start_from=finished)
    with pytest.raises(DaggerError, match="expected a finished round"):
        small_run(tmp_path / "other", demonstrations=None, start_from=tmp_path)
    assert not (tmp_path / "other").exists()


def test_bc_collects_only_demonstrations(tmp_path: Path) -> None:
    result, _ = small_run(tmp_path / "run", rule="bc")
    assert [r["intervention_rate"] for r in result["rounds"]] == [1.0, 1.0]
    assert result["rounds"][1]["labels_total"] == sum(r["labels_new"] for r in result["rounds"])


def test_rule_that_asks_for_help_carries_its_limits_from_one_policy_to_the_next_round(tmp_path: Path) -> None:
    quick = TrainingSettings(members=2, hidden=(32,), steps=150, bootstrap=True)
    result, _ = small_run(tmp_path / "run", rule="thrifty", budget=0.2, demonstrations=2, episodes=2, training=quick)
    about = json.loads((tmp_path / "run/policies/pi_000/policy.json").read_text())["limits"]
    assert (about["rule"], set(about["ask"]), set(about["back"])) == (
        "thrifty",
        {"doubt", "risk"},
        {"risk", "discrepancy"},
    )
    second = result["rounds"][1]
    assert second["help_requests"] >= 1
    assert second["help_requests"] <= 0.2 * (second["policy_ticks"] + second["help_requests"]) + 1
    assert second["labels_new"] <= second["expert_ticks"]
    layout = RowLayout(load_contract(contract_path("peg")))
    rows = [read_rows(tmp_path / f"run/rounds/001/episodes/00000{i}/bag", layout) for i in range(2)]
    assert sum(int((r["help"][1:] & ~r["help"][:-1]).sum() + r["help"][0]) for r in rows) == second["help_requests"]
    assert all(np.isfinite(r[name]).all() for r in rows for name in ("doubt", "novelty", "risk"))


def test_policy_of_another_rule_has_no_limits_that_could_be_used(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(DaggerError, match="rule safe: expected a policy whose limits were fitted for this rule"):
        collect_round(
            contract_path("peg"),
            tmp_path / "round",
            rule="safe",
            round_index=1,
            options=RuleOptions(),
            policy=copy / "policies/pi_000",
            seeds=[1],
            on_episode=lambda _status: None,
        )


SMALL = ["--members", "1", "--hidden", "32", "--steps", "150"]


def test_train_gives_the_policy_that_the_loop_trains_on_the_same_rounds(
    copy: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(copy / "policies/pi_001")
    main(["train", str(copy), *SMALL])
    assert files(copy) == files(finished)
    said = capsys.readouterr().out
    assert f"policy: {copy}/policies/pi_001\n" in said
    assert f"policy:={copy}/policies/pi_001 rule:=hg out:={copy}/rounds/002\n" in said


def test_train_fits_the_limits_of_the_rule_that_comes_next(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "policies/pi_001")
    main(["train", str(copy), "--rule", "ensemble", "--members", "2", "--hidden", "32", "--steps", "50", "--bootstrap"])
    limits = json.loads((copy / "policies/pi_001/policy.json").read_text())["limits"]
    assert limits["rule"] == "ensemble"
    assert "limits of rule ensemble: " + ", ".join(f"{k} {v:.4g}" for k, v in limits["ask"].items()) in (
        capsys.readouterr().out
    )


def test_train_puts_the_contract_into_a_run_that_has_none(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copy / "policies")
    shutil.rmtree(copy / "rounds/001")
    (copy / "contract.yaml").unlink()
    with pytest.raises(SystemExit):
        main(["train", str(copy), *SMALL])
    assert "contract.yaml: expected the contract of the run; there is none" in capsys.readouterr().err
    assert not (copy / "policies").exists()
    main(["train", str(copy), *SMALL, "--contract", str(contract_path("peg"))])
    assert (copy / "contract.yaml").read_bytes() == contract_path("peg").read_bytes()
    assert [p.name for p in (copy / "policies").iterdir()] == ["pi_000"]


@pytest.mark.parametrize(
    ("prepare", "options", "message"),
    [
        (lambda run: None, [], "pi_001: expected a round that no policy was trained after yet; this one was"),
        (
            lambda run: shutil.copytree(run / "rounds/001/episodes/000000", run / "rounds/001/episodes/000001"),
            [],
            "rounds/001: expected every finished episode in its manifest; 1 not in it. End the recorder, which writes",
        ),
        (
            lambda run: (run / "rounds/001/manifest.json").unlink(),
            [],
            "rounds/001: expected a finished round; there is no manifest.json",
        ),
        (lambda run: None, ["--contract", str(contract_path("lane"))], "they do not mix"),
        (lambda run: None, ["--rule", "hg", "--budget", "0.1"], "budget: expected only with rule thrifty, got 0.1"),
        (lambda run: None, ["--seed", "-1"], "seed: expected a whole number >= 0, got -1"),
        (lambda run: None, ["--max-labels", "0"], "max_labels: expected a whole number >= 1, got 0"),
        (
            lambda run: shutil.rmtree(run / "policies"),
            ["--start", "previous"],
            "pi_000: expected a policy here (policy.json",
        ),
    ],
)
def test_what_cannot_be_trained_is_said_and_changes_nothing(
    prepare: Callable[[Path], object],
    options: list[str],
    message: str,
    copy: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    prepare(copy)
    before = files(copy)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(copy), *SMALL, *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert files(copy) == before


def test_inspect_says_how_often_the_policy_succeeded_alone(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = json.loads((copy / "rounds/001/manifest.json").read_text())["episodes"][0]
    alone = int(entry["success"] and not entry["expert_ticks"])
    main(["inspect", str(copy)])
    assert f"{alone} of 1 (" in capsys.readouterr().out
