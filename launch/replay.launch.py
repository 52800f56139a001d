"""Replay: the observations of a recorded episode, played to the policy and the supervisor of today.

ros2 launch dagger_ros replay.launch.py bag:=RUN/rounds/001/episodes/000000/bag policy:=RUN/policies/pi_003

Only the contract's observation topics are played, so what was proposed, decided and commanded back then cannot be
mistaken for what is now. All lies in a namespace, and the command goes to a topic with `_replayed` at its end, so
that no robot hears it. `/clock` is the recorded time, for every node that follows it: replay with nothing else
running, or in a ROS_DOMAIN_ID of its own.
"""

import math
import shutil
import sys
from pathlib import Path

import yaml
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess

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
    shipped_contract,
)
from dagger_ros_bring_up import bring_up

MOST_CLOCK_HZ = 1000.0  # more keeps a core busy


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument(
            "bag", description="rosbag2 folder with the contract's observations, as episodes/000000/bag; needed"
        ),
        DeclareLaunchArgument(
            "contract",
            default_value=str(shipped_contract("peg")),
            description="task contract that the bag was recorded under, a YAML file",
        ),
        ARGUMENTS["policy"],
        DeclareLaunchArgument(
            "namespace",
            default_value="replay",
            description="namespace of the nodes and of what is played; empty: none",
        ),
        DeclareLaunchArgument(
            "rate",
            default_value="1.0",
            description="speed of the recorded time, 1; far below 1 observations count as stale, as they would live",
        ),
        DeclareLaunchArgument(
            "loop",
            default_value="false",
            choices=BOOLEAN,
            description="true: begin again at the end of the bag; false: end there",
        ),
        DeclareLaunchArgument(
            "delay", default_value="3.0", description="time that the nodes have to start before the bag begins, s"
        ),
        ARGUMENTS["node_config"],
    ]
    return LaunchDescription([*arguments, on_this_machine(graph)])


def graph(context):
    """The nodes and the player that the arguments ask for."""
    given = Given(context)
    bag, path = given.existing("bag"), given.existing("contract")
    policy = given.policy()
    namespace = given.text("namespace").strip("/")
    contract = load_contract(path)
    play = player(
        bag,
        contract,
        namespace=namespace,
        rate=given.positive("rate"),
        delay=given.positive("delay"),
        loop=given.flag("loop"),
    )
    if shutil.which(play[0]) is None:
        raise RuntimeError("ros2: expected the command `ros2 bag play` on PATH, found none; source a ROS 2 first")

    def node(executable, **parameters):
        unheard = [(contract.action.topic, f"{contract.action.topic}_replayed")]
        return dagger_node(given, executable, path, use_sim_time=True, remappings=unheard, **parameters)

    # Nothing moves, so nobody has to arm; there is no expert, so only the policy can drive.
    nodes = [node("supervisor", rule="hg", round=1, auto_arm=True)]
    if policy is not None:
        nodes.append(node("policy", policy=str(policy)))
    nodes += bring_up(managed_names(given, [n.node_executable for n in nodes]))
    return [*nodes, ExecuteProcess(cmd=play, name="player", output="screen", on_exit=end_all)]


def player(bag, contract, *, namespace, rate, delay, loop):
    """The command line that plays the contract's observation topics into the namespace."""
    recorded = recorded_topics(bag)
    missing = [f"/{topic}" for topic in contract.topics if f"/{topic}" not in recorded]
    if missing:
        raise RuntimeError(
            f"bag: expected the observations of contract {contract.name}, but {bag} has no {', '.join(missing)}; "
            f"it has {', '.join(recorded) or 'nothing'}"
        )
    # A stamp may be ahead of the clock by the contract's tolerance: the steps of the clock are half of that.
    tolerance_s = contract.timing.future_tolerance_s
    clock_hz = min(math.ceil(2 * rate / tolerance_s), MOST_CLOCK_HZ) if tolerance_s > 0 else MOST_CLOCK_HZ
    command = ["ros2", "bag", "play", str(bag), "--clock", f"{clock_hz:g}", "--rate", f"{rate:g}"]
    command += ["--delay", f"{delay:g}", "--disable-keyboard-controls", *(["--loop"] if loop else [])]
    command += ["--topics", *(f"/{topic}" for topic in contract.topics)]
    if namespace:
        command += ["--remap", *(f"/{topic}:=/{namespace}/{topic}" for topic in contract.topics)]
    return command


def recorded_topics(bag):
    """Names of the topics of a bag."""
    try:
        about = yaml.safe_load((bag / "metadata.yaml").read_text(encoding="utf-8"))
        topics = about["rosbag2_bagfile_information"]["topics_with_message_count"]
        return [topic["topic_metadata"]["name"] for topic in topics]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise RuntimeError(f"bag: expected a rosbag2 folder with its metadata.yaml, got {bag}: {error}") from error
