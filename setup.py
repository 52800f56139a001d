"""What the package is called, needs and starts: the one home of its Python dependencies and entry points.

`CMakeLists.txt` takes the executables from `NODES` and `COMMANDS`; `tools/env.py` installs the versions of
`tools/constraints.txt`, which lie within the ranges below.
"""

from setuptools import find_packages, setup

# What `ros2 run dagger_ros NAME` starts. Not console scripts: `policy` has no place on anybody's PATH.
NODES = {
    "policy": "dagger_ros.nodes.policy:main",
    "supervisor": "dagger_ros.nodes.supervisor:main",
    "expert_label": "dagger_ros.nodes.expert_label:main",
    "simulated_operator": "dagger_ros.nodes.simulated_operator:main",
    "aggregator": "dagger_ros.nodes.aggregator:main",
    "mujoco_bridge": "dagger_ros.nodes.mujoco_bridge:main",
    "fault_injector": "dagger_ros.nodes.fault_injector:main",
    "operator_queue": "dagger_ros.nodes.operator_queue:main",
}

# What is on PATH.
COMMANDS = {"dagger-ros": "dagger_ros.cli:main"}

# Not rclpy and the message packages: they come with ROS 2, or from the wheels that tools/env.py installs.
REQUIRES = [
    "av>=12",
    "h5py>=3.8",
    "jinja2>=3.1",
    "mcap>=1.6",
    "mujoco>=3.3,<5",
    "numpy>=1.22",
    "pillow>=9.1",
    "pyarrow>=14",
    "pydantic>=2.6,<3",
    "pyyaml>=5.4",
    "rich>=12.5",
    "rosbags>=0.11",
    "safetensors>=0.4",
    "scikit-learn>=1.3",
    "scipy>=1.10",
    "threadpoolctl>=3.1",
    "torch>=2.2",
]

# Policies from outside (ONNX), and learners from outside (Gymnasium).
OUTSIDE_REQUIRES = ["gymnasium>=0.29", "onnxruntime>=1.23"]

TEST_REQUIRES = [
    *OUTSIDE_REQUIRES,
    "hypothesis",
    "import-linter>=2.1",
    "mutmut>=3.3,<4",
    "mypy>=1.11",
    "onnx>=1.14",
    "pytest>=8",
    "pytest-cov",
    "pytest-xdist>=3",
    "ruff>=0.9",
    "types-PyYAML",
]

if __name__ == "__main__":
    setup(
        name="dagger_ros",
        version="0.1.0",
        description="DAgger on a robot with ROS 2: roll out under a supervisor, label, retrain, evaluate",
        license="Apache-2.0",
        python_requires=">=3.10",
        packages=find_packages(include=["dagger_ros", "dagger_ros.*"]),
        package_data={"dagger_ros": ["evaluation/report/page.*"]},
        install_requires=REQUIRES,
        extras_require={"outside": OUTSIDE_REQUIRES, "test": TEST_REQUIRES},
        entry_points={
            "console_scripts": [f"{name} = {target}" for name, target in COMMANDS.items()],
            "dagger_ros.nodes": [f"{name} = {target}" for name, target in NODES.items()],
        },
    )
