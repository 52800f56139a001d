"""Robot: supervisor, policy, expert and recording beside a robot whose driver runs already.

ros2 launch dagger_ros robot.launch.py contract:=my_arm.yaml policy:=runs/my_arm/policies/pi_001 out:=/data/round_002

The supervisor boots LOCKED and stays so until a person calls its service `arm`; /diagnostics says what it waits for.
Nothing is started again: when one process ends, all do, and the last command that goes out is the supervisor's stop.
"""

import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch_ros.actions import Node

sys.path.insert(0, str(Path(__file__).absolute().parent))
from dagger_ros_arguments import ARGUMENTS, BOOLEAN, Given, end_all, load_contract


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument("contract", description="task contract of the robot, a YAML file; needed"),
        ARGUMENTS["policy"],
        ARGUMENTS["namespace"],
        DeclareLaunchArgument(
            "joy",
            default_value="false",
            choices=BOOLEAN,
            description="true: start joy_node of the package joy; no expert of this version reads its topic yet",
        ),
        ARGUMENTS["rule"],
        ARGUMENTS["round"],
        DeclareLaunchArgument(
            "expert",
            default_value="scripted",
            choices=("scripted", "operator", "none"),
            description="the task's scripted expert, the simulated operator that takes over, or no expert node",
        ),
        ARGUMENTS["out"],
        ARGUMENTS["node_config"],
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=graph)])


def graph(context):
    """The nodes that the arguments ask for."""
    given = Given(context)
    contract, config = given.existing("contract"), given.existing("node_config")
    policy, out = given.policy(), given.path("out")
    rule, round_, expert = given.text("rule"), given.round(policy), given.text("expert")
    if given.demonstrations(round_, policy) and expert == "none":
        raise RuntimeError("expert: expected scripted or operator, since the expert drives demonstrations; got none")
    load_contract(contract)
    if given.flag("joy"):
        check_joy()

    def process(package, executable, parameters):
        return Node(
            package=package,
            executable=executable,
            namespace=given.text("namespace"),
            parameters=parameters,
            output="screen",
            on_exit=end_all,
        )

    def node(executable, **parameters):
        common = {"contract": str(contract), "lockstep": False}
        return process("dagger_ros", executable, [str(config / f"{executable}.yaml"), {**common, **parameters}])

    # A person arms, whatever the parameter file says.
    nodes = [node("supervisor", rule=rule, round=round_, auto_arm=False)]
    if policy is not None:
        nodes.append(node("policy", policy=str(policy)))
    if expert != "none":
        nodes.append(node("expert_label", expert=expert))
    if out is not None:
        nodes.append(node("aggregator", rule=rule, round=round_, out=str(out), simulation_seed=-1))
    if given.flag("joy"):
        nodes.append(process("joy", "joy_node", []))
    return nodes


def check_joy():
    """Looks before anything runs: what launch has just started when it trips over a missing package, it may leave."""
    try:
        get_package_prefix("joy")
    except PackageNotFoundError as error:
        raise RuntimeError("joy: expected the package joy, which is not installed (ros-DISTRO-joy)") from error
