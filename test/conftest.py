"""What the tests share: the shipped contracts, and a ROS domain for each test that needs one."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, settings

from dagger_ros.contract import Contract, RowLayout, load_contract
from dagger_ros.policy import Checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parent.parent
TASKS = ("peg", "lane")

# Of n workers of pytest-xdist each has every n-th domain.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_RUN = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
# 1 to 101 are free of the ports that Linux hands out by itself; the start differs from one run to the next beside it.
_DOMAINS = itertools.cycle((_RUN * 7 + i) % 101 + 1 for i in range(_WORKER, 101, _WORKERS))


def pytest_configure() -> None:
    """Examples are the same each time, however long one takes; who asks for no domain has one of this run."""
    os.environ["ROS_DOMAIN_ID"] = str(next_domain())
    settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("tests")


def contract_path(task: str) -> Path:
    return ROOT / "config" / "contracts" / f"{task}.yaml"


def small_panel(
    count: int, name: str = "small", first_seed: int = 1_000_000_000, help: str = "none", **conditions: dict[str, Any]
) -> Any:
    """A panel, of one plain condition unless others are given."""
    pytest.importorskip("mujoco")
    from dagger_ros.evaluation import Panel

    return Panel.model_validate(
        {
            "name": name,
            "description": "of a test",
            "first_seed": first_seed,
            "count": count,
            "help": help,
            "conditions": conditions or {"plain": {}},
        }
    )


def next_domain() -> int:
    """A ROS domain that no other test of this run uses."""
    return next(_DOMAINS)


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
    domain = next_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    return domain


def by_joint_position(content: dict[str, Any], **limits: float) -> None:
    """Makes of the content of the peg's contract one of an arm that is commanded by joint positions."""
    motion = {"velocity_limit": 1.0, "acceleration_limit": 10.0, "jump_limit": 0.5, "tracking_limit": 0.3} | limits
    content["expert"] = None  # its sticks move the tool
    content["action"] |= {
        "type": "std_msgs/msg/Float64MultiArray",
        "interface": "position",
        "stop": "hold_position",
        "measured": "joint_position",
        "workspace": [],
        "dimensions": [
            {"name": f"j{i + 1}", "select": f"data[{i}]", "unit": "rad", "lower": -3.0, "upper": 3.0} | motion
            for i in range(6)
        ],
    }


def with_cameras(source: Path, path: Path, *, type_: str = "Image", **sizes: tuple[int, int]) -> Path:
    """Writes a contract to `path` that has cameras too, of a width and a height each, and its model beside `source`."""
    content = yaml.safe_load(source.read_text())
    content["cameras"] = {
        name: {
            "topic": f"{name}/image",
            "type": f"sensor_msgs/msg/{type_}",
            "width": width,
            "height": height,
            "frame": name,
            "rate_hz": content["timing"]["control_rate_hz"],
            "max_age_s": 3.0,  # as long as a busy machine may take
        }
        for name, (width, height) in sizes.items()
    }
    content["simulation"]["model"] = str((source.parent / content["simulation"]["model"]).resolve())
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def limits_for(rule: str) -> dict[str, Any]:
    """Limits with which a weak policy asks for help now and then, and is given control back now and then."""
    ask = {"doubt": 0.2, "risk": 0.7} if rule == "thrifty" else {"deviation": 0.6}
    back = {"deviation": 0.4} if rule == "safe" else {"discrepancy": 1.2}
    return {"rule": rule, "ask": ask, "back": back, "back_ticks": 2}


def weak_policy(
    task: str, folder: Path, *, contract: Contract | None = None, seed: int = 0, limits: dict[str, Any] | None = None
) -> Path:
    """A policy that is bad enough for an operator to be needed: small random weights, of its scores too."""
    contract = contract or load_contract(contract_path(task))
    layout = RowLayout(contract)
    rng = np.random.default_rng(seed)
    sizes = (layout.observation_size, 32, layout.action_size)
    tensors: dict[str, Any] = {}
    for i in range(2):
        tensors[f"layer{i}.weight"] = rng.normal(size=(2, sizes[i], sizes[i + 1])).astype(np.float32) * 0.2
        tensors[f"layer{i}.bias"] = np.zeros((2, 1, sizes[i + 1]), np.float32)
    half = [(d.upper - d.lower) / 2 for d in contract.action.dimensions_]
    tensors |= {
        "input_mean": np.zeros(sizes[0], np.float32),
        "input_scale": np.ones(sizes[0], np.float32),
        "output_mean": np.array([(d.upper + d.lower) / 2 for d in contract.action.dimensions_], np.float32),
        "output_scale": np.array(half, np.float32),
    }
    for name, inputs, members in (("deviation", sizes[0], 1), ("risk", sizes[0] + sizes[2], 2)):
        tensors[f"{name}.layer0.weight"] = rng.normal(size=(members, inputs, 1)).astype(np.float32)
        tensors[f"{name}.layer0.bias"] = np.zeros((members, 1, 1), np.float32)
    columns, actions = layout.columns(), contract.action.dimensions
    about = Checkpoint(f"pi_{seed:03d}", 0, contract.sha256, 0, columns, actions, (), {}, limits or {})
    save_checkpoint(folder, about, tensors)
    return folder
