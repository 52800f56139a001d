"""Finds the files that come with the package: in the source tree, or where colcon installed them."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory

__all__ = ["config_file", "message_definition"]

_SOURCE = Path(__file__).resolve().parent.parent.parent


def config_file(name: str) -> Path:
    """A file of `config/`, as in `panels/nominal.yaml`."""
    return _file("config", name)


def message_definition(type_name: str) -> str:
    """Text of the .msg file of one of this package's types, as in `dagger_ros/msg/GateDecision`."""
    return _file("msg", f"{type_name.rpartition('/')[2]}.msg").read_text(encoding="utf-8")


def _file(folder: str, name: str) -> Path:
    source = _SOURCE / folder / name
    return source if source.is_file() else Path(get_package_share_directory("dagger_ros")) / folder / name
