"""What the tests share: the shipped contracts, and a ROS domain for each test that needs one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from dagger_ros.contract import Contract, load_contract

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("peg", "lane")

# 1 to 101 are free of the ports that Linux hands out by itself; the start differs from one run to the next beside it.
_DOMAINS = itertools.cycle((os.getpid() * 7 + i) % 101 + 1 for i in range(101))


def contract_path(task: str) -> Path:
    return ROOT / "config" / "contracts" / f"{task}.yaml"


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def contract(task: str) -> Contract:
    return load_contract(contract_path(task))


@pytest.fixture
def peg() -> Contract:
    return load_contract(contract_path("peg"))


@pytest.fixture
def lane() -> Contract:
    return load_contract(contract_path("lane"))


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain that no other test of this run uses, in the environment of this process and of its children."""
    pytest.importorskip("rclpy")
    domain = next(_DOMAINS)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    return domain
