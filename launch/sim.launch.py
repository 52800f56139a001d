"""Simulation: MuJoCo in place of the robot, and the graph around it, each node a process of its own.

ros2 launch dagger_ros sim.launch.py                                       the expert demonstrates, in real time
ros2 launch dagger_ros sim.launch.py policy:=runs/demo/policies/pi_006     a policy drives, an operator takes over
ros2 launch dagger_ros sim.launch.py expert:=joystick joy:=true operator_id:=ada    you do, with a pad
ros2 launch dagger_ros sim.launch.py lockstep:=true out:=/tmp/round_000    recorded, as fast as it goes
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
    shipped_contract,
    shipped_tasks,
)
from dagger_ros_bring_up import bring_up


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(
            "task", default_value="peg", choices=shipped_tasks(), description="task that ships, if no contract is given"
        ),
        DeclareLaunchArgument(
            "contract",
            default_value="",
            description="task contract, a YAML file with a section 'simulation'; empty: that of the task",
        ),
        ARGUMENTS["rule"],
        ARGUMENTS["round"],
        ARGUMENTS["policy"],
        DeclareLaunchArgument(
            "lockstep",
            default_value="false",
            choices=BOOLEAN,
            description="true: each tick waits for its command, as fast as it goes; false: real time",
        ),
        ARGUMENTS["namespace"],
        DeclareLaunchArgument(
            "headless",
            default_value="true",
            choices=("true",),
            description="no window; the bridge has no viewer yet, so this is the only choice",
        ),
        DeclareLaunchArgument(
            "seed",
            default_value="0",
            description="seed of the first episode; -1: wait for a call of the service mujoco_bridge/reset",
        ),
        DeclareLaunchArgument(
            "repeat",
            default_value="true",
            choices=BOOLEAN,
            description="true: a new episode, with the next seed, when one is over; false: one episode, not recorded",
        ),
        DeclareLaunchArgument(
            "expert",
            default_value="",
            choices=("", "scripted", "operator", "joystick"),
            description="the task's scripted expert, the simulated operator that takes over, or a person at a pad; "
            "empty: operator under rule hg from round 1, else scripted",
        ),
        *(ARGUMENTS[name] for name in ("joy", "pad", "operator_id", "labels")),
        ARGUMENTS["out"],
        ARGUMENTS["respawn"],
        ARGUMENTS["node_config"],
    ]
    return LaunchDescription([*arguments, on_this_machine(graph)])


def graph(context):
    """The nodes that the arguments ask for."""
    given = Given(context)
    contract = given.existing("contract") if given.text("contract") else shipped_contract(given.text("task"))
    policy, out = given.policy(), given.path("out")
    rule, round_, seed = given.text("rule"), given.round(policy), given.whole_number("seed", least=-1)
    demonstrations = given.demonstrations(round_, policy)
    repeat = given.flag("repeat")
    if out is not None and not repeat:
        raise RuntimeError("repeat: expected true with out, since recording goes on until it is stopped; got false")
    # As dagger_ros.sim.experts.labeller_of_rule has it.
    expert = given.text("expert") or ("operator" if rule == "hg" and not demonstrations else "scripted")
    if expert == "joystick" and given.flag("lockstep"):
        raise RuntimeError("lockstep: expected false with expert:=joystick, for a person lives in real time; got true")
    hands = given.hands(expert)
    pads = pad_nodes(given, load_contract(contract), use_sim_time=True)

    def node(executable, **settings):
        common = {"lockstep": given.flag("lockstep"), "use_sim_time": True, "remappings": own_clock}
        return dagger_node(given, executable, contract, **{**common, **settings})

    # Each simulation has a time of its own, and there may be two in one ROS domain.
    own_clock = [("/clock", "clock")] if given.text("namespace").strip("/") else []
    nodes = [
        node(
            "supervisor",
            rule=rule,
            round=round_,
            auto_arm=True,
            needs_policy=policy is not None,
            policy=str(policy or ""),
        ),
        node("expert_label", expert=expert, **hands),
    ]
    if policy is not None:
        nodes.append(node("policy", policy=str(policy)))
    if out is not None:
        # It begins the episodes, so that none is missed: the bridge waits for it.
        nodes.append(node("aggregator", rule=rule, round=round_, out=str(out), simulation_seed=seed))
        seed, repeat = -1, False
    # Its own time is not simulated: it is where that comes from.
    nodes.append(node("mujoco_bridge", seed=seed, repeat=repeat, use_sim_time=False))
    return [*nodes, *bring_up(managed_names(given, [n.node_executable for n in nodes])), *pads]
