"""What tests of nodes share."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from conftest import contract_path


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """The peg's contract with ages that a busy machine does not exceed."""
    content = yaml.safe_load(contract_path("peg").read_text())
    for stream in content["streams"].values():
        stream["max_age_s"] = 3.0
    content["simulation"]["model"] = str((contract_path("peg").parent / content["simulation"]["model"]).resolve())
    content["timing"] |= {"policy_max_age_s": 2.0, "expert_max_age_s": 2.0}
    content["expert"]["joystick"]["still_s"] = 120.0
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


@pytest.fixture(autouse=True)
def disk_that_never_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder of a test has the thread of the other nodes, and a busy disk takes up to 16 s for fsync."""
    monkeypatch.setattr("os.fsync", lambda file: None)
