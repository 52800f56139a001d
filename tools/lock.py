"""Writes tools/constraints.txt: the exact versions that `make env` installs, for Python 3.10 and newer.

    python3 tools/lock.py       needs `uv` (`pip install uv`) and the network

takes the newest set that fits the ranges of setup.py. Then review the diff and run `make clean test`.
"""

import re
import runpy
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# The declared dependencies of the ROS wheels are incomplete: what building an interface package needs is
# named here, after what the nodes use.
ROS = """
    rclpy rmw-fastrtps-cpp ament-index-python
    builtin-interfaces diagnostic-msgs geometry-msgs lifecycle-msgs nav-msgs rosgraph-msgs sensor-msgs
    std-msgs std-srvs trajectory-msgs
    ament-cmake ament-cmake-gmock ament-cmake-gtest ament-cmake-include-directories ament-cmake-pytest
    ament-cmake-ros ament-cmake-ros-core ament-package fastrtps-cmake-module python-cmake-module
    rosidl-core-generators rosidl-default-generators rosidl-default-runtime
"""
# colcon-core needs setuptools < 80.
BUILD = "setuptools<80 cmake catkin_pkg colcon-bash colcon-cmake colcon-output colcon-recursive-crawl colcon-ros"
# What a CPU-only torch needs. torch itself, and what other builds of it need, is up to tools/env.py.
TORCH_NEEDS = "filelock fsspec jinja2 networkx sympy typing-extensions"
# mujoco 4 has nothing in it but two requirements: mujoco-core, and a viewer of 150 MB that nothing here uses.
LEFT_OUT = re.compile(r"(mujoco-studio|websockets)==|.*sys_platform == 'win32'")


def resolve(requirements: list[str], *options: str) -> list[str]:
    """Gives `name==version ; marker` of all that the requirements need, whatever the Python version."""
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10", "--no-annotate"]
    command += ["--no-header", *options, "-"]
    result = subprocess.run(command, input="\n".join(requirements), check=True, text=True, stdout=subprocess.PIPE)
    return [line for line in result.stdout.splitlines() if not LEFT_OUT.match(line)]


def main() -> None:
    """Resolves everything together, then finds out which part building the messages needs."""
    setup = runpy.run_path(str(ROOT / "setup.py"))
    ranges = [r for r in setup["REQUIRES"] + setup["TEST_REQUIRES"] if not r.startswith("torch")]
    ros = [f"ros-{name}" for name in ROS.split()] + BUILD.split()
    constraints = ROOT / "tools/constraints.txt"
    pins = resolve(ranges + TORCH_NEEDS.split() + ros)
    constraints.write_text("\n".join(pins))
    ros_pins = resolve(ros, "--constraint", str(constraints))
    lines = ["# Written by tools/lock.py. tools/env.py installs these as they are, the two sections side by side."]
    lines += ["", "# [ros]", *ros_pins, "", "# [rest]", *(pin for pin in pins if pin not in ros_pins)]
    constraints.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
