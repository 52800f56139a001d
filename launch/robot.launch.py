"""Robot: supervisor, policy, expert and recording beside a robot whose driver runs already.

ros2 launch dagger_ros robot.launch.py contract:=my_arm.yaml policy:=runs/a/policies/pi_001 out:=runs/a/rounds/002

The supervisor boots LOCKED and stays so until a person calls its service `arm`; /diagnostics says what it waits for.
Nothing is started again: when one process ends, all do, and the last command that goes out is the supervisor's stop.
"""

import sys
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch_ros.actions import Node

sys.path.insert(0, str(Path(__file__).absolute().parent))
from dagger_ros_arguments import (
    ARGUMENTS,
    BOOLEAN,
    Given,
    dagger_node,
    end_all,
    load_contract,
    managed_names,
    on_this_machine,
)
from dagger_ros_bring_up import bring_up


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument("contract", description="task contract of the robot, a YAML file; needed"),
        ARGUMENTS["policy"],
        ARGUMENTS["namespace"],
        DeclareLaunchArgument(
            "joy",
            default_value="false",
            choices=BOOLEAN,
            description="true: start joy_node of the package joy, for expert:=joystick",
        ),
        ARGUMENTS["rule"],
        ARGUMENTS["round"],
        DeclareLaunchArgument(
            "expert",
            default_value="scripted",
            choices=("scripted", "operator", "joystick", "none"),
            description="the task's scripted expert, the simulated operator that takes over, a person at a pad, or "
            "no expert node",
        ),
        DeclareLaunchArgument(
            "pad",
            default_value="xbox",
            description="with expert:=joystick: a YAML file, or the name of one in config/joysticks",
        ),
        DeclareLaunchArgument(
            "operator_id",
            default_value="",
            description="with expert:=joystick: who holds the pad; stands on each label",
        ),
        DeclareLaunchArgument(
            "labels",
            default_value="takeover",
            choices=("takeover", "shadow"),
            description="with expert:=joystick: the deadman takes control, or only says that the sticks are labels",
        ),
        ARGUMENTS["out"],
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            choices=BOOLEAN,
            description="true: the robot is a simulation that publishes /clock; false: the clock of this computer",
        ),
        ARGUMENTS["respawn"],
        ARGUMENTS["node_config"],
    ]
    return LaunchDescription([*arguments, on_this_machine(graph)])


def graph(context):
    """The nodes that the arguments ask for."""
    given = Given(context)
    contract = given.existing("contract")
    policy, out = given.policy(), given.path("out")
    rule, round_, expert = given.text("rule"), given.round(policy), given.text("expert")
    if given.demonstrations(round_, policy) and expert == "none":
        raise RuntimeError("expert: expected one that drives, since demonstrations are the expert's; got none")
    if expert == "joystick" and not given.text("operator_id"):
        raise RuntimeError("operator_id: expected who holds the pad, since it stands on each label; got nothing")
    timing = load_contract(contract).timing
    if given.flag("joy"):
        check_joy()

    def node(executable, **parameters):
        return dagger_node(given, executable, contract, use_sim_time=given.flag("use_sim_time"), **parameters)

    # A person arms, whatever the parameter file says.
    nodes = [node("supervisor", rule=rule, round=round_, auto_arm=False, policy=str(policy or ""))]
    if policy is not None:
        nodes.append(node("policy", policy=str(policy)))
    if expert != "none":
        hands = {name: given.text(name) for name in ("pad", "operator_id", "labels")}
        nodes.append(node("expert_label", expert=expert, **hands))
    if out is not None:
        nodes.append(node("aggregator", rule=rule, round=round_, out=str(out), simulation_seed=-1))
    managed = bring_up(managed_names(given, [n.node_executable for n in nodes]))
    if given.flag("joy"):
        nodes.append(joy_node(given, timing))
    return [*nodes, *managed]


def joy_node(given, timing):
    """The driver of the pad; one at rest repeats itself, three times within the age at which it would count as gone."""
    return Node(
        package="joy",
        executable="joy_node",
        namespace=given.text("namespace"),
        parameters=[{"autorepeat_rate": max(20.0, 3 / timing.expert_max_age_s)}],
        output="screen",
        on_exit=end_all,
    )


def check_joy():
    """Looks before anything runs: what launch has just started when it trips over a missing package, it may leave."""
    try:
        get_package_prefix("joy")
    except PackageNotFoundError as error:
        raise RuntimeError("joy: expected the package joy, which is not installed (ros-DISTRO-joy)") from error
