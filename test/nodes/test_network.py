"""How far messages go, as the environment has it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ament_index_python")
from dagger_ros.nodes.network import TRANSPORT, is_open, network_settings

PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"


def test_where_nothing_is_said_messages_stay_on_this_machine() -> None:
    settings = network_settings({"HOME": "/root"})
    assert set(settings) == {TRANSPORT[0], PROFILES}
    assert Path(settings[PROFILES]).name == "loopback.xml"
    assert not is_open(settings)
    # A process that another one of ours started, as launch does.
    assert network_settings(settings) == {}


@pytest.mark.parametrize(
    ("said", "far"),
    [
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, True),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "localhost"}, False),
        ({"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, False),
        ({"ROS_LOCALHOST_ONLY": "1"}, False),
        ({"ROS_LOCALHOST_ONLY": "0"}, True),
        ({"ROS_STATIC_PEERS": "192.0.2.7"}, True),
        ({"ROS_DISCOVERY_SERVER": "192.0.2.7:11811"}, True),
        ({TRANSPORT[0]: "UDPv4"}, True),
    ],
)
def test_who_says_how_far_is_obeyed(said: dict[str, str], far: bool) -> None:
    settings = network_settings(said)
    assert Path(settings[PROFILES]).name == "open.xml"
    assert not set(settings) & set(said)
    assert is_open(said | settings) == far


def test_profile_of_ones_own_stays() -> None:
    assert network_settings({PROFILES: "mine.xml"}) == dict([TRANSPORT])
    assert is_open({PROFILES: "mine.xml"})
