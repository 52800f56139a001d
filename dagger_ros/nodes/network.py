"""How far messages go: over the loopback interface, unless the environment says otherwise. See docs/security.md."""

from __future__ import annotations

import os
from collections.abc import Mapping

from dagger_ros.nodes.share import config_file

__all__ = ["TRANSPORT", "is_open", "network_settings", "stay_on_this_machine"]

# Left to itself Fast DDS passes messages within a machine through shared memory, and its locks outlive their owner:
# after a kill -9 or a crash whoever sends to the dead node may wait for 1 s or more, in the middle of `publish`. Nobody
# waits for a dead UDP port. What Linux lets a port hold by default (208 KB) is less than three pictures of 80 KB at
# once; of 4 MB it gives what net.core.rmem_max allows. Other middleware ignores the variable.
TRANSPORT = ("FASTDDS_BUILTIN_TRANSPORTS", "UDPv4?sockets_size=4MB")
_PROFILES = "FASTDDS_DEFAULT_PROFILES_FILE"
_RANGE, _LOCALHOST = "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"
# Whoever sets one of these says how far messages go, or over what.
_SAID = (TRANSPORT[0], _PROFILES, _RANGE, _LOCALHOST, "ROS_DISCOVERY_SERVER", "ROS_STATIC_PEERS")


def network_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What to add to the environment of a process with nodes: UDP, no lookup of types, no socket to another machine.

    Args:
        environment: As it is; what it says already stays.
    """
    settings = dict([TRANSPORT])
    settings[_PROFILES] = _profile("open" if any(name in environment for name in _SAID) else "loopback")
    return {name: value for name, value in settings.items() if name not in environment}


def stay_on_this_machine() -> None:
    """Sets these in the environment of this process; before rclpy is initialized."""
    os.environ.update(network_settings(os.environ))


def is_open(environment: Mapping[str, str]) -> bool:
    """Whether nodes with this environment find those of other machines, as far as it tells."""
    if environment.get(_PROFILES) == _profile("loopback"):
        return False
    if _RANGE in environment:
        return environment[_RANGE].upper() not in ("LOCALHOST", "OFF")
    return environment.get(_LOCALHOST, "0") != "1"


def _profile(name: str) -> str:
    """A profile of Fast DDS.

    Each does without the lookup of types, for which ROS has no use: its thread (`dds.tls.replies`) crashed a node in
    one of about fifty starts of a graph.
    """
    return str(config_file(f"security/{name}.xml"))
