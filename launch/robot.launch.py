"""Robot: supervisor, policy, expert and recording beside a robot whose driver runs already.

ros2 launch dagger_ros robot.launch.py contract:=my_arm.yaml policy:=runs/a/policies/pi_001 out:=runs/a/rounds/002

The supervisor boots LOCKED and stays so until a person calls its service `arm`; /diagnostics says what it waits for.
Nothing is started again: when one process ends, all do, and the last command that goes out is the supervisor's stop.
"""

import sys
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument

sys.path.insert(0, str(Path(__file__).absolute().parent))
from dagger_ros_arguments import (
    ARGUMENTS,
    BOOLEAN,
    Given,
    dagger_node,
    load_contract,
    managed_names,
    on_this_machine,
    pad_nodes,
)
from dagger_ros_bring_up import bring_up


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument("contract", description="task contract of the robot, a YAML file; needed"),
        ARGUMENTS["policy"],
        ARGUMENTS["namespace"],
        ARGUMENTS["joy"],
        ARGUMENTS["rule"],
        ARGUMENTS["round"],
        DeclareLaunchArgument(
            "expert",
            default_value="",
            choices=("", "joystick", "scripted", "operator", "none"),
            description="a person at a pad, the task's scripted expert, the simulated operator that takes over, or no "
            "expert node; empty: joystick or scripted, as operator.source of the contract has it",
        ),
        *(ARGUMENTS[name] for name in ("pad", "operator_id", "labels")),
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
    path = given.existing("contract")
    contract = load_contract(path)
    policy, out = given.policy(), given.path("out")
    rule, round_ = given.text("rule"), given.round(policy)
    expert = given.text("expert") or contract.operator.source
    if given.demonstrations(round_, policy) and expert == "none":
        raise RuntimeError("expert: expected one that drives, since demonstrations are the expert's; got none")
    hands, use_sim_time = given.hands(expert), given.flag("use_sim_time")
    pads = pad_nodes(given, contract, use_sim_time=use_sim_time)

    def node(executable, **parameters):
        return dagger_node(given, executable, path, use_sim_time=use_sim_time, **parameters)

    # A person arms, whatever the parameter file says.
    nodes = [node("supervisor", rule=rule, round=round_, auto_arm=False, policy=str(policy or ""))]
    if policy is not None:
        nodes.append(node("policy", policy=str(policy)))
    if expert != "none":
        nodes.append(node("expert_label", expert=expert, **hands))
    if out is not None:
        nodes.append(node("aggregator", rule=rule, round=round_, out=str(out), simulation_seed=-1))
    return [*nodes, *bring_up(managed_names(given, [n.node_executable for n in nodes])), *pads]
