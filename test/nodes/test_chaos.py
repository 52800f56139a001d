"""One kill -9 of each node of a running graph. How fast is the business of benchmarks/chaos.py."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")
from kills import NODES, killing

pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.slow]


def test_each_kill_stops_the_plant_with_its_reason_until_a_person_goes_on(ros_domain: int, tmp_path: Path) -> None:
    with killing(ros_domain, tmp_path) as rig:
        for seed, node in enumerate(NODES):
            # Waits for a person's arming before, for rest and for the reason after the kill.
            kill = rig.kill(node, seed=seed, after_s=0.1 * seed)
            assert kill.driven == 0, kill
            assert kill.moved_m <= rig.rest_m, kill
        rig.drive()
