"""What the launch files share: arguments, how they are read, the nodes, and that the end of one is the end of all."""

import importlib
import math
import os
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.actions import DeclareLaunchArgument, EmitEvent, GroupAction, OpaqueFunction, SetEnvironmentVariable
from launch.events import Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

SHARE = Path(__file__).absolute().parent.parent  # share/dagger_ros, or the checkout
BOOLEAN = ("true", "false")
CONTRACTS = SHARE / "config/contracts"
# Nodes with a life cycle, in the order in which they are brought up: nobody proposes before somebody gates.
MANAGED = ("supervisor", "policy", "expert_label", "aggregator")
# While they are away the supervisor holds, and goes on holding until a person resumes.
RESPAWNED = ("policy", "expert_label")
RESPAWN_DELAY_S = 1.0
WRONG_INPUT = 2  # exit code of a node that was given what cannot be

ARGUMENTS = {
    argument.name: argument
    for argument in (
        DeclareLaunchArgument(
            "rule",
            default_value="hg",
            choices=("bc", "dagger", "hg", "safe", "lazy", "ensemble", "thrifty"),
            description="who drives and what becomes a label; in round 0 the expert drives whatever the rule; safe, "
            "lazy, ensemble and thrifty ask for help by limits that the policy was trained with",
        ),
        DeclareLaunchArgument(
            "round",
            default_value="",
            description="number of the round, 0: demonstrations; empty: that of out, if it is RUN/rounds/NNN; else 0 "
            "without a policy, 1 with one",
        ),
        DeclareLaunchArgument(
            "policy",
            default_value="",
            description="folder of a checkpoint, such as RUN/policies/pi_000; empty: no policy node",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of every node; empty: none"),
        DeclareLaunchArgument(
            "joy",
            default_value="false",
            choices=BOOLEAN,
            description="true: start joy_node of the package joy, for expert:=joystick",
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
        DeclareLaunchArgument(
            "out",
            default_value="",
            description="folder of the round that episodes are recorded into; empty: no aggregator, no recording",
        ),
        DeclareLaunchArgument(
            "node_config",
            default_value=str(SHARE / "config/nodes"),
            description="folder with one parameter file for each node; other arguments override what it says",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=BOOLEAN,
            description="true: policy and expert_label are started again when they crash, and the robot is held until "
            "somebody resumes; false: the end of one process is the end of all. Never the supervisor",
        ),
    )
}


def shipped_contract(task):
    """The contract of a task that ships."""
    return CONTRACTS / f"{task}.yaml"


def shipped_tasks():
    """Names of all of them."""
    return sorted(path.stem for path in CONTRACTS.glob("*.yaml"))


class Given:
    """The arguments as they were given. What cannot be is a RuntimeError that says so in one sentence.

    Args:
        context: Of the launch.
    """

    def __init__(self, context):
        self._context = context

    def text(self, name):
        """As it stands."""
        return LaunchConfiguration(name).perform(self._context)

    def has(self, name):
        """Whether the launch file has this argument."""
        return name in self._context.launch_configurations

    def flag(self, name):
        """Whether it is true."""
        return self.text(name) == "true"

    def existing(self, name):
        """A path where something is."""
        path = self.path(name)
        if path is None or not path.exists():
            raise RuntimeError(f"{name}: expected a path that exists, got {self.text(name)!r} (in {Path.cwd()})")
        return path

    def path(self, name):
        """A path, or None if it is empty."""
        return Path(self.text(name)).expanduser().absolute() if self.text(name) else None

    def whole_number(self, name, *, least):
        """A whole number that is not less than `least`."""
        try:
            number = int(self.text(name))
        except ValueError:
            number = least - 1
        if number < least:
            raise RuntimeError(f"{name}: expected a whole number >= {least}, got {self.text(name)!r}")
        return number

    def positive(self, name):
        """A number above 0."""
        try:
            number = float(self.text(name))
        except ValueError:
            number = math.nan
        if not 0 < number < math.inf:
            raise RuntimeError(f"{name}: expected a number > 0, got {self.text(name)!r}")
        return number

    def policy(self):
        """Folder of the checkpoint, or None."""
        folder = self.existing("policy") if self.text("policy") else None
        if folder is not None and not (folder / "policy.json").is_file():
            raise RuntimeError(f"policy: expected a folder with policy.json, got {folder}")
        return folder

    def round(self, policy):
        """Number of the round."""
        out = self.path("out")
        if not self.text("round"):
            if out is not None and out.parent.name == "rounds" and out.name.isdigit():
                return int(out.name)
            return 0 if policy is None else 1
        return self.whole_number("round", least=0)

    def hands(self, expert):
        """What expert_label has to know of the person at the pad."""
        if expert == "joystick" and not self.text("operator_id"):
            raise RuntimeError("operator_id: expected who holds the pad, since it stands on each label; got nothing")
        return {name: self.text(name) for name in ("pad", "operator_id", "labels")}

    def demonstrations(self, round_, policy):
        """Whether the expert drives and nobody else; if not, there has to be a policy."""
        rule = self.text("rule")
        expert_drives = rule == "bc" or round_ == 0
        if policy is None and not expert_drives:
            raise RuntimeError(
                f"policy: expected a folder with policy.json, since a policy drives in round {round_} of rule {rule}; "
                "got nothing (without a policy: round:=0 or rule:=bc)"
            )
        return expert_drives


def load_contract(path):
    """The contract, read here so that what is wrong with it is said once, and not by each node."""
    return imported("dagger_ros.contract").load_contract(path)


def on_this_machine(function):
    """What a function of the context starts: it talks on this machine only, unless the environment says otherwise.

    And it ends with this launch, also if that was killed.
    """

    def settings(_context):
        found = imported("dagger_ros.nodes.network").network_settings(os.environ)
        found[imported("dagger_ros.nodes.base").LAUNCHER] = str(os.getpid())
        return [SetEnvironmentVariable(name, value) for name, value in found.items()]

    return GroupAction([OpaqueFunction(function=settings), OpaqueFunction(function=function)])


def imported(name):
    """A module of ours."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(f"dagger_ros: expected a Python that can import it, to read contracts; {error}") from error


def dagger_node(given, executable, contract, *, lockstep=False, use_sim_time=False, remappings=(), **parameters):
    """A node of ours: its parameter file, and over it what the launch file says.

    Args:
        given: `node_config`, `namespace` and, where the launch file has it, `respawn`.
        executable: Of the node, and its name.
        contract: Path of the task contract.
        lockstep: See the node's parameter.
        use_sim_time: It follows /clock.
        remappings: Topics that go by another name.
        parameters: Further ones.
    """
    again = given.has("respawn") and given.flag("respawn") and executable in RESPAWNED
    common = {"contract": str(contract), "lockstep": lockstep, "use_sim_time": use_sim_time}
    if executable in MANAGED:
        common["autostart"] = again  # who is started again has nobody who brings it up
    return Node(
        package="dagger_ros",
        executable=executable,
        namespace=given.text("namespace"),
        parameters=[str(given.existing("node_config") / f"{executable}.yaml"), {**common, **parameters}],
        remappings=list(remappings),
        output="screen",
        respawn=again,
        respawn_delay=RESPAWN_DELAY_S,
        on_exit=end_unless_crashed if again else end_all,
    )


def pad_nodes(given, contract, *, use_sim_time):
    """The driver of the pad, if it is asked for.

    One at rest repeats itself, three times within the age at which it would count as gone.
    """
    if not given.flag("joy"):
        return []
    # Before anything runs: what launch has just started when it trips over a missing package, it may leave.
    try:
        get_package_prefix("joy")
    except PackageNotFoundError as error:
        raise RuntimeError("joy: expected the package joy, which is not installed (ros-DISTRO-joy)") from error
    rate_hz = max(20.0, 3 / contract.timing.expert_max_age_s)
    return [
        Node(
            package="joy",
            executable="joy_node",
            namespace=given.text("namespace"),
            parameters=[{"autorepeat_rate": rate_hz, "use_sim_time": use_sim_time}],
            output="screen",
            on_exit=end_all,
        )
    ]


def managed_names(given, executables):
    """Full names of the nodes that are brought up, in order."""
    namespace = given.text("namespace").strip("/")
    return [f"/{namespace}/{name}" if namespace else f"/{name}" for name in MANAGED if name in executables]


def end_unless_crashed(event, context):
    """Of a process that is started again after a crash: told to end, or given what cannot be, it is the end of all."""
    return end_all(event, context) if event.returncode in (0, WRONG_INPUT) else None


def end_all(event, context):
    """With a part missing the rest is of no use. An exception is what makes `ros2 launch` exit with an error."""
    if context.is_shutdown:
        return None
    if event.returncode != 0:
        raise RuntimeError(f"{event.process_name} ended with exit code {event.returncode}; all others are stopped")
    return EmitEvent(event=Shutdown(reason=f"{event.process_name} ended"))
