from __future__ import annotations

from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import yaml

from conftest import contract_path
from dagger_ros.cli import main

pytestmark = pytest.mark.mujoco


def fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


def test_check_shows_streams_units_bounds_budget_labels_and_hash(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    from dagger_ros.contract import load_contract

    main(["check", str(contract_path(task))])
    text = capsys.readouterr().out
    contract = load_contract(contract_path(task))
    assert contract.sha256 in text
    for word in (*contract.streams, *contract.action.dimensions, *contract.task.failure_labels, "latency budget s"):
        assert word in text


def test_check_of_a_wrong_contract_lists_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    del content["action"]["dimensions"][0]["upper"]
    content["robot"]["colour"] = "red"
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump(content))
    error = fails(["check", str(path)], capsys)
    assert f"{path}: 2 problems" in error
    assert "robot.colour: expected no such key here (valid here: body, description); found 'red'" in error


def test_check_looks_into_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = yaml.safe_load(contract_path("peg").read_text())
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(content))
    assert "simulation.model: expected an MJCF file" in fails(["check", str(path)], capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--contract", "nowhere.yaml"], "nowhere.yaml: expected a task contract"),
        (["--contract", str(contract_path("peg")), "--rounds", "0"], "rounds: expected a whole number >= 1, got 0"),
        (["--contract", str(contract_path("peg")), "--rule", "magic"], "rule: expected one of bc, dagger, hg"),
        (["--contract", str(contract_path("peg")), "--workers", "0"], "workers: expected a whole number >= 1, got 0"),
        (["--contract", str(contract_path("peg")), "--panel", "none.yaml"], "none.yaml: expected a panel"),
    ],
)
def test_run_with_wrong_options_says_so_and_makes_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rclpy")
    pytest.importorskip("torch")
    assert message in fails(["run", *options, "--out", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rules", "hg,magic"], "rule: expected one of bc, dagger, hg"),
        (
            ["--rules", "hg,hg"],
            "expected at least one method and one seed, and each once; got methods hg, hg; seeds 0, 1",
        ),
        (["--rules", ""], "expected at least one method and one seed, and each once; got methods none"),
        (["--seeds", "0,x"], "seeds: expected whole numbers, comma-separated, got '0,x'"),
        (["--rules", "thrifty", "--budgets", "0.1;2"], "budgets: expected numbers, comma-separated, got '0.1;2'"),
        (["--rules", "thrifty", "--budgets", "2"], "budget: expected a share of the policy's ticks between 0 and 1"),
        (["--jobs", "0"], "jobs: expected a whole number >= 1, got 0"),
        (["--rounds", "0"], "rounds: expected a whole number >= 1, got 0"),
    ],
)
def test_compare_with_wrong_options_says_so_and_makes_nothing(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("rclpy")
    pytest.importorskip("torch")
    given = ["compare", "--contract", str(contract_path("peg")), "--seeds", "0,1", *options]
    assert message in fails([*given, "--out", str(tmp_path / "out")], capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("verb", "error", "status", "message"),
    [
        ("run", BrokenProcessPool(), 2, "was killed (is there enough memory?); the same command with --resume goes on"),
        ("compare", BrokenProcessPool(), 2, "was killed (is there enough memory?); the same command goes on"),
        ("run", KeyboardInterrupt(), 130, "interrupted; the same command with --resume goes on"),
        ("compare", KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
    ],
)
def test_command_that_was_cut_short_says_how_to_go_on(
    verb: str,
    error: BaseException,
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cut_short(_: object) -> None:
        raise error

    monkeypatch.setattr(f"dagger_ros.cli.runs._{verb}", cut_short)
    with pytest.raises(SystemExit) as caught:
        main([verb, "--contract", str(contract_path("peg")), "--out", "x"])
    assert caught.value.code == status
    assert capsys.readouterr().err.endswith(f"{message}\n")
