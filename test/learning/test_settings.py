"""Settings of a training: what cannot be is refused, and each is an option of the command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from dagger_ros.cli.training import add_training_options, training_of
from dagger_ros.contract import DaggerError
from dagger_ros.learning.settings import TrainingSettings


def parsed(*arguments: str) -> TrainingSettings:
    parser = argparse.ArgumentParser()
    add_training_options(parser)
    return training_of(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"members": 0}, "members: expected a whole number >= 1, got 0"),
        ({"steps": 1.5}, "steps: expected a whole number >= 1, got 1.5"),
        ({"validation_patience": -1}, "validation_patience: expected a whole number >= 0, got -1"),
        ({"hidden": (64, 0)}, r"hidden: expected whole numbers >= 1, got \(64, 0\)"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number > 0, got 0"),
        ({"input_noise": float("nan")}, "input_noise: expected a number >= 0, got nan"),
        ({"leave_out_before_takeover_s": -1.0}, "leave_out_before_takeover_s: expected a number >= 0, got -1.0"),
        ({"start": "warm"}, "start: expected scratch or previous, got 'warm'"),
        ({"batches": "half"}, "batches: expected uniform or iwr, got 'half'"),
        ({"batches": "iwr", "batch": 1}, "batch: expected at least 2 with batches iwr"),
        ({"device": "mps"}, "device: expected cpu or cuda, got 'mps'"),
        ({"device": "cuda", "products": "onednn"}, "products: expected blas on device cuda"),
        ({"horizon": 17}, "horizon: expected a whole number from 1 to 16, got 17"),
        ({"chunk_use": "first"}, "chunk_use: expected ensembled or plain, got 'first'"),
    ],
)
def test_setting_that_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(DaggerError, match=words):
        TrainingSettings(**wrong)


def test_chunks_are_said_only_where_there_are_any() -> None:
    assert TrainingSettings().chunks == {}
    assert TrainingSettings(horizon=8, chunk_decay=0.1).chunks == {"horizon": 8, "use": "ensembled", "decay": 0.1}


def test_every_setting_is_an_option_with_its_default_and_description(capsys: pytest.CaptureFixture[str]) -> None:
    assert parsed() == TrainingSettings()
    with pytest.raises(SystemExit):
        parsed("--help")
    said = " ".join(capsys.readouterr().out.split())
    for field in fields(TrainingSettings):
        assert f"--{field.name.replace('_', '-')}" in said, field.name
    assert said.count("(default: ") == len(fields(TrainingSettings))
    assert "Gradient steps (default: 4000)" in said


def test_options_become_settings() -> None:
    given = parsed(
        *("--hidden", "64,32", "--no-bootstrap", "--batches", "iwr", "--learning-rate", "1e-4", "--horizon", "8")
    )
    assert given == TrainingSettings(hidden=(64, 32), bootstrap=False, batches="iwr", learning_rate=1e-4, horizon=8)
    with pytest.raises(DaggerError, match="start: expected scratch or previous, got 'x'"):
        parsed("--start", "x")


def test_layers_that_are_no_numbers_are_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parsed("--hidden", "64,wide")
    assert ended.value.code == 2
    assert "--hidden: expected whole numbers, comma-separated, got '64,wide'" in capsys.readouterr().err


def test_command_line_reads_the_settings_without_loading_torch() -> None:
    code = "import sys, dagger_ros.cli.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
