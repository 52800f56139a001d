"""The launch files and the parameter files of the nodes: what they say, and what they start."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import importlib.util
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from conftest import ROOT, contract_path, weak_policy
from dagger_ros.contract import DaggerError, load_contract
from dagger_ros.sim.experts import labeller_of_rule

LAUNCH_FILES = ("sim", "robot", "replay")
LAUNCHED = ("aggregator", "expert_label", "mujoco_bridge", "policy", "supervisor")
CONTRACT_NODES = ("fault_injector", "simulated_operator", *LAUNCHED)
NODES = ("operator_queue", *CONTRACT_NODES)
MANAGED = ("supervisor", "policy", "expert_label", "aggregator")
# Not a measure of speed: how long a hung graph is waited for before the test fails.
PATIENCE_S = 120.0


def parameter_file(node: str) -> Path:
    return ROOT / "config" / "nodes" / f"{node}.yaml"


def parameters_in_file(node: str) -> dict[str, Any]:
    content = yaml.safe_load(parameter_file(node).read_text(encoding="utf-8"))
    assert list(content) == ["/**"]
    assert list(content["/**"]) == ["ros__parameters"]
    return flat(content["/**"]["ros__parameters"])


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in tree.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


# What the files say; needs nothing


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda path: path.name)
def test_every_launch_argument_has_a_description(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "DeclareLaunchArgument"]
    assert calls or path.name == "dagger_ros_bring_up.py"
    for call in calls:
        descriptions = [k.value for k in call.keywords if k.arg == "description"]
        assert [d for d in descriptions if isinstance(d, ast.Constant) and d.value], ast.unparse(call)


def test_every_node_has_a_parameter_file_and_every_parameter_file_a_node() -> None:
    assert sorted(path.stem for path in (ROOT / "config" / "nodes").glob("*")) == sorted(NODES)


@pytest.mark.parametrize("node", NODES)
def test_every_parameter_in_a_file_has_a_comment(node: str) -> None:
    for line in parameter_file(node).read_text(encoding="utf-8").splitlines():
        key, _, rest = line.partition(":")
        if line.startswith("    ") and not key.strip().startswith("#") and rest.strip():
            assert "# " in line, line


# What the nodes declare


def node_class(node: str) -> Any:
    """The class of a node."""
    pytest.importorskip("rclpy")
    from dagger_ros.nodes.base import ContractNode

    module = importlib.import_module(f"dagger_ros.nodes.{node}")
    (found,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, ContractNode) and value.__module__ == module.__name__
    ]
    return found


@pytest.mark.ros
@pytest.mark.mujoco
@pytest.mark.parametrize("node", CONTRACT_NODES)
def test_parameter_file_holds_what_the_node_declares_with_its_defaults(node: str) -> None:
    declared = {parameter.name: parameter.default for parameter in node_class(node).parameters()}
    assert parameters_in_file(node) == declared


@pytest.mark.ros
@pytest.mark.parametrize("node", ["supervisor", "aggregator"])
def test_node_takes_its_parameter_file_and_declares_nothing_else(node: str, ros_domain: int, tmp_path: Path) -> None:
    rclpy = pytest.importorskip("rclpy")
    needed = {"contract": str(contract_path("peg"))} | ({"out": str(tmp_path)} if node == "aggregator" else {})
    context = rclpy.context.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(parameter_file(node))], context=context, domain_id=ros_domain)
    try:
        made = node_class(node)(needed, context)
        declared = set(made.get_parameters_by_prefix(""))
        made.destroy_node()
    finally:
        context.try_shutdown()
    of_every_ros_node = {"use_sim_time", "start_type_description_service"}
    assert declared - of_every_ros_node == set(parameters_in_file(node))


@pytest.mark.ros
@pytest.mark.mujoco
@pytest.mark.parametrize("node", CONTRACT_NODES)
def test_each_parameter_is_described_with_its_type_and_range(node: str) -> None:
    for parameter in node_class(node).parameters():
        about = parameter.descriptor
        assert about.description
        assert about.read_only
        assert about.type
        if parameter.choices:
            assert parameter.default in parameter.choices
            assert ", ".join(parameter.choices) in about.additional_constraints
        assert bool(about.integer_range or about.floating_point_range) == bool(parameter.range)
        assert parameter.checked(parameter.default) == parameter.default


# What is started; needs launch and launch_ros


class Started:
    """Stands for a launch action: keeps what it was made with."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.name = self.node_executable = settings.get("executable") or settings["name"]

    @property
    def parameters(self) -> dict[str, Any]:
        """Without the file, which comes first, so that these win."""
        file, given = self.settings["parameters"]
        assert file == str(parameter_file(self.name))
        return dict(given)


class Launched:
    """One launch file, read by the real launch, with its processes kept instead of started."""

    def __init__(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("launch_ros.actions", reason="launch and launch_ros are not on PyPI")
        path = ROOT / "launch" / f"{name}.launch.py"
        spec = importlib.util.spec_from_loader(
            f"{name}_launch", importlib.machinery.SourceFileLoader(f"{name}_launch", str(path))
        )
        assert spec is not None
        assert spec.loader is not None
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        self.module = types.ModuleType(spec.name)
        self.module.__file__ = str(path)
        spec.loader.exec_module(self.module)
        self.shared = sys.modules["dagger_ros_arguments"]
        monkeypatch.setattr(self.shared, "Node", Started)
        monkeypatch.setattr(self.module, "Node", Started, raising=False)
        monkeypatch.setattr(self.module, "bring_up", self._bring_up)
        if name == "replay":
            monkeypatch.setattr(self.module, "ExecuteProcess", Started)
            monkeypatch.setattr(self.module.shutil, "which", lambda name: f"/usr/bin/{name}")
        self.description = self.module.generate_launch_description()

    def graph(self, **arguments: object) -> dict[str, Started]:
        from launch import LaunchContext

        context = LaunchContext()
        for name, value in arguments.items():
            context.launch_configurations[name] = str(value)
        for argument in self.description.get_launch_arguments():
            argument.execute(context)
        processes = self.module.graph(context)
        return {p.name: p for p in processes}

    def _bring_up(self, names: list[str]) -> list[Any]:
        self.brought_up = names
        return []


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Launched]:
    return lambda name: Launched(name, monkeypatch)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    folder = tmp_path / "pi_001"
    folder.mkdir()
    (folder / "policy.json").write_text("{}")
    return folder


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """The metadata of a bag as the aggregator records it."""
    topics = [*load_contract(contract_path("peg")).topics, "command", "policy/action", "supervisor/decision"]
    about = {"topics_with_message_count": [{"topic_metadata": {"name": f"/{topic}"}} for topic in topics]}
    folder = tmp_path / "bag"
    folder.mkdir()
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": about}))
    return folder


@pytest.mark.launch
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (
            "sim",
            "contract expert headless joy labels lockstep namespace node_config operator_id out pad policy repeat "
            "respawn round rule seed task",
        ),
        (
            "robot",
            "contract expert joy labels namespace node_config operator_id out pad policy respawn round rule "
            "use_sim_time",
        ),
        ("replay", "bag contract delay loop namespace node_config policy rate"),
    ],
)
def test_launch_file_has_these_described_arguments(
    name: str, arguments: str, launched: Callable[[str], Launched]
) -> None:
    found = launched(name).description.get_launch_arguments()
    assert sorted(argument.name for argument in found) == arguments.split()
    assert all(argument.description for argument in found)
    required = {argument.name for argument in found if argument.default_value is None}
    assert required == {"sim": set(), "robot": {"contract"}, "replay": {"bag"}}[name]


@pytest.mark.launch
def test_sim_without_a_policy_demonstrates(launched: Callable[[str], Launched]) -> None:
    graph = launched("sim").graph()
    assert set(graph) == {"supervisor", "expert_label", "mujoco_bridge"}
    assert graph["supervisor"].parameters["round"] == 0
    assert graph["supervisor"].parameters["auto_arm"] is True
    assert graph["supervisor"].parameters["needs_policy"] is False
    assert graph["expert_label"].parameters["expert"] == "scripted"


@pytest.mark.launch
def test_sim_with_a_policy_and_a_folder_starts_every_node(
    launched: Callable[[str], Launched], policy: Path, tmp_path: Path
) -> None:
    graph = launched("sim").graph(policy=policy, out=tmp_path / "round", round=3, lockstep="true", namespace="left")
    assert set(graph) == set(LAUNCHED)
    assert {node.settings["namespace"] for node in graph.values()} == {"left"}
    assert all(node.parameters["lockstep"] is True for node in graph.values())
    assert graph["policy"].parameters["policy"] == str(policy)
    assert graph["supervisor"].parameters["needs_policy"] is True
    assert graph["supervisor"].parameters["policy"] == str(policy)
    assert graph["aggregator"].parameters["out"] == str(tmp_path / "round")
    assert [graph[name].parameters["round"] for name in ("supervisor", "aggregator")] == [3, 3]


@pytest.mark.launch
def test_recorded_simulation_waits_for_the_recorder(launched: Callable[[str], Launched], tmp_path: Path) -> None:
    graph = launched("sim").graph(out=tmp_path / "round", seed=7)
    assert graph["aggregator"].parameters["simulation_seed"] == 7
    assert graph["mujoco_bridge"].parameters["seed"] == -1
    assert graph["mujoco_bridge"].parameters["repeat"] is False


@pytest.mark.launch
def test_simulation_that_is_not_recorded_starts_by_itself(launched: Callable[[str], Launched]) -> None:
    bridge = launched("sim").graph(seed=7, repeat="false")["mujoco_bridge"]
    assert bridge.parameters["seed"] == 7
    assert bridge.parameters["repeat"] is False


@pytest.mark.launch
def test_only_the_bridge_does_not_follow_the_clock_that_it_publishes(
    launched: Callable[[str], Launched], policy: Path, tmp_path: Path
) -> None:
    graph = launched("sim").graph(policy=policy, out=tmp_path / "round")
    follows = {name: node.parameters["use_sim_time"] for name, node in graph.items()}
    assert follows == {name: name != "mujoco_bridge" for name in LAUNCHED}


@pytest.mark.launch
@pytest.mark.parametrize("rule", ["bc", "dagger", "hg", "lazy"])
@pytest.mark.parametrize("round_", [0, 1])
def test_sim_has_the_labeller_that_the_rule_needs(
    rule: str, round_: int, launched: Callable[[str], Launched], policy: Path
) -> None:
    graph = launched("sim").graph(policy=policy, rule=rule, round=round_)
    assert graph["expert_label"].parameters["expert"] == labeller_of_rule(rule, round_)


@pytest.mark.launch
def test_nodes_are_brought_up_in_order_and_the_end_of_one_is_the_end_of_all(
    launched: Callable[[str], Launched], policy: Path, tmp_path: Path
) -> None:
    robot = launched("robot")
    graph = robot.graph(contract=contract_path("peg"), policy=policy, out=tmp_path / "round", namespace="/left/")
    assert robot.brought_up == [f"/left/{name}" for name in MANAGED]
    assert all(graph[name].parameters["autostart"] is False for name in MANAGED)
    assert all(node.settings["on_exit"] is robot.shared.end_all for node in graph.values())
    assert not any(node.settings["respawn"] for node in graph.values())


@pytest.mark.launch
@pytest.mark.parametrize("name", ["sim", "robot"])
def test_only_who_proposes_is_started_again(
    name: str, launched: Callable[[str], Launched], policy: Path, tmp_path: Path
) -> None:
    graph = launched(name).graph(contract=contract_path("peg"), policy=policy, out=tmp_path, respawn="true")
    again = {node.name for node in graph.values() if node.settings["respawn"]}
    assert again == {"policy", "expert_label"}
    assert {name for name in MANAGED if graph[name].parameters["autostart"]} == again
    on_exit, running = graph["policy"].settings["on_exit"], SimpleNamespace(is_shutdown=False)
    assert on_exit(SimpleNamespace(process_name="policy-1", returncode=-9), running) is None
    with pytest.raises(RuntimeError, match="policy-1 ended with exit code 2"):
        on_exit(SimpleNamespace(process_name="policy-1", returncode=2), running)


@pytest.mark.launch
def test_simulations_in_namespaces_have_clocks_of_their_own(launched: Callable[[str], Launched]) -> None:
    for node in launched("sim").graph(namespace="left").values():
        assert node.settings["remappings"] == [("/clock", "clock")]
    for node in launched("sim").graph().values():
        assert node.settings["remappings"] == []


@pytest.mark.launch
def test_robot_is_armed_by_a_person_only(
    launched: Callable[[str], Launched], policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    robot = launched("robot")
    monkeypatch.setattr(robot.shared, "get_package_prefix", lambda name: f"/opt/{name}")
    graph = robot.graph(contract=contract_path("peg"), policy=policy, out=tmp_path / "round", joy="true")
    assert list(graph) == ["supervisor", "policy", "expert_label", "aggregator", "joy_node"]
    assert graph["supervisor"].parameters["auto_arm"] is False
    assert graph["aggregator"].parameters["simulation_seed"] == -1
    assert all(graph[name].parameters["lockstep"] is False for name in list(graph)[:4])
    assert graph["joy_node"].settings["package"] == "joy"
    (parameters,) = graph["joy_node"].settings["parameters"]
    assert parameters == {"autorepeat_rate": 30.0, "use_sim_time": False}
    assert graph["expert_label"].parameters["expert"] == "scripted"  # as the contract has it


@pytest.mark.launch
@pytest.mark.parametrize("name", ["sim", "robot"])
def test_a_person_may_hold_the_pad(name: str, launched: Callable[[str], Launched], tmp_path: Path) -> None:
    started = launched(name)
    text = contract_path("peg").read_text().replace("source: scripted", "source: joystick")
    (tmp_path / "contract.yaml").write_text(text)
    expert = {"sim": "joystick", "robot": ""}[name]
    given = {"contract": tmp_path / "contract.yaml", "expert": expert, "pad": "playstation", "labels": "shadow"}
    with pytest.raises(RuntimeError, match="operator_id: expected who holds the pad"):
        started.graph(**given)
    parameters = started.graph(**given, operator_id="ada")["expert_label"].parameters
    hands = {"expert": "joystick", "pad": "playstation", "operator_id": "ada", "labels": "shadow"}
    assert {name: parameters[name] for name in hands} == hands


@pytest.mark.launch
def test_round_is_that_of_its_folder(launched: Callable[[str], Launched], policy: Path, tmp_path: Path) -> None:
    graph = launched("sim").graph(policy=policy, out=tmp_path / "rounds/007")
    assert {graph[name].parameters["round"] for name in ("supervisor", "aggregator")} == {7}


@pytest.mark.launch
def test_robot_without_the_package_joy_starts_nothing(
    launched: Callable[[str], Launched], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(ROOT))
    with pytest.raises(RuntimeError, match="joy: expected the package joy, which is not installed"):
        launched("robot").graph(contract=contract_path("peg"), joy="true")


@pytest.mark.launch
def test_launch_files_set_only_parameters_that_the_nodes_have(
    launched: Callable[[str], Launched], policy: Path, bag: Path, tmp_path: Path
) -> None:
    out = tmp_path / "round"
    graphs = [
        launched("sim").graph(policy=policy, out=out),
        launched("robot").graph(contract=contract_path("peg"), policy=policy, out=out),
        launched("replay").graph(bag=bag, policy=policy),
    ]
    for node in (node for graph in graphs for node in graph.values() if node.name != "player"):
        assert set(node.parameters) <= set(parameters_in_file(node.name)) | {"use_sim_time"}


@pytest.mark.launch
def test_replay_plays_the_observations_only_and_into_the_namespace(
    launched: Callable[[str], Launched], policy: Path, bag: Path
) -> None:
    graph = launched("replay").graph(bag=bag, policy=policy, rate=2, loop="true")
    assert list(graph) == ["supervisor", "policy", "player"]
    assert graph["player"].settings["cmd"] == [
        *("ros2", "bag", "play", str(bag), "--clock", "400", "--rate", "2", "--delay", "3"),
        *("--disable-keyboard-controls", "--loop"),
        *("--topics", "/perception/peg_in_hole", "/tool_pose", "/joint_states", "/ground_truth/peg_in_hole"),
        *("--remap", "/perception/peg_in_hole:=/replay/perception/peg_in_hole", "/tool_pose:=/replay/tool_pose"),
        *("/joint_states:=/replay/joint_states", "/ground_truth/peg_in_hole:=/replay/ground_truth/peg_in_hole"),
    ]


@pytest.mark.launch
@pytest.mark.parametrize("namespace", ["replay", ""])
def test_replay_never_commands_a_robot(namespace: str, launched: Callable[[str], Launched], bag: Path) -> None:
    supervisor = launched("replay").graph(bag=bag, namespace=namespace)["supervisor"]
    assert supervisor.settings["remappings"] == [("command", "command_replayed")]
    assert supervisor.parameters["use_sim_time"] is True


@pytest.mark.launch
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("sim", {"rule": "magic"}, 'Argument "rule" provided value "magic" is not valid'),
        ("sim", {"headless": "false"}, 'Argument "headless" provided value "false" is not valid'),
        ("sim", {"rule": "hg", "round": 1}, "policy: expected a folder .* since a policy drives in round 1 of rule hg"),
        ("sim", {"policy": "nowhere"}, "policy: expected a path that exists, got 'nowhere'"),
        ("sim", {"policy": "{tmp}"}, "policy: expected a folder with policy.json"),
        ("sim", {"contract": "nowhere.yaml"}, "contract: expected a path that exists, got 'nowhere.yaml'"),
        (
            "sim",
            {"expert": "joystick", "operator_id": "ada", "lockstep": "true"},
            "lockstep: expected false with expert:=joystick",
        ),
        ("sim", {"round": "two"}, "round: expected a whole number >= 0, got 'two'"),
        ("sim", {"out": "{tmp}", "repeat": "false"}, "repeat: expected true with out"),
        ("sim", {"seed": -2}, "seed: expected a whole number >= -1, got '-2'"),
        ("robot", {}, "missing|required|contract"),
        ("robot", {"contract": "{peg}", "expert": "none"}, "expert: expected one that drives"),
        ("replay", {"bag": "nowhere"}, "bag: expected a path that exists, got 'nowhere'"),
        ("replay", {"bag": "{tmp}"}, "bag: expected a rosbag2 folder with its metadata.yaml"),
        ("replay", {"bag": "{bag}", "contract": "{lane}"}, "bag: expected the observations of contract lane, .* /scan"),
        ("replay", {"bag": "{bag}", "rate": 0}, "rate: expected a number > 0, got '0'"),
        ("replay", {"bag": "{bag}", "delay": "nan"}, "delay: expected a number > 0, got 'nan'"),
    ],
)
def test_wrong_argument_is_one_sentence(
    name: str,
    arguments: dict[str, object],
    message: str,
    launched: Callable[[str], Launched],
    bag: Path,
    tmp_path: Path,
) -> None:
    places = {"tmp": tmp_path, "bag": bag, "peg": contract_path("peg"), "lane": contract_path("lane")}
    given = {key: str(value).format(**places) for key, value in arguments.items()}
    with pytest.raises(RuntimeError, match=message):
        launched(name).graph(**given)


@pytest.mark.launch
def test_contract_that_is_not_valid_is_refused_before_a_node_starts(
    launched: Callable[[str], Launched], tmp_path: Path
) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text("contract: 1\n")
    with pytest.raises(DaggerError, match="licence: expected this key"):
        launched("robot").graph(contract=path)


@pytest.mark.launch
def test_a_process_that_fails_ends_the_launch_with_an_error(launched: Callable[[str], Launched]) -> None:
    died = SimpleNamespace(process_name="supervisor-1", returncode=-9)
    with pytest.raises(RuntimeError, match="supervisor-1 ended with exit code -9"):
        launched("robot").shared.end_all(died, SimpleNamespace(is_shutdown=False))


@pytest.mark.launch
def test_a_process_that_ends_shuts_the_launch_down(launched: Callable[[str], Launched]) -> None:
    ended = SimpleNamespace(process_name="supervisor-1", returncode=0)
    end_all = launched("robot").shared.end_all
    assert type(end_all(ended, SimpleNamespace(is_shutdown=False)).event).__name__ == "Shutdown"
    assert end_all(ended, SimpleNamespace(is_shutdown=True)) is None


RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
path, *arguments = sys.argv[1:]
source = AnyLaunchDescriptionSource(path)
service = LaunchService()
pairs = [tuple(a.split(":=")) for a in arguments]
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=pairs)])
)
sys.exit(service.run())
"""
XML = """
<launch>
  <include file="{file}">
    <arg name="out" value="{out}"/>
    <arg name="namespace" value="sim"/>
    <arg name="lockstep" value="true"/>
  </include>
</launch>
"""
YAML = """
launch:
- include:
    file: "{file}"
    arg:
    - {{name: out, value: "{out}"}}
    - {{name: namespace, value: sim}}
    - {{name: lockstep, value: "true"}}
"""


class Running:
    """A launch that runs, in a session of its own."""

    def __init__(self, folder: Path, path: Path, *arguments: str) -> None:
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(path), *arguments],
                env=os.environ | {"ROS_LOG_DIR": str(folder)},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def end(self) -> int:
        """Ctrl-C, and the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)

    def members(self) -> list[int]:
        """Processes of its session."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                if int(stat.read_text().rpartition(")")[2].split()[3]) == self.process.pid:
                    found.append(int(stat.parent.name))
        return found


@pytest.mark.launch
@pytest.mark.ros
@pytest.mark.mujoco
@pytest.mark.slow
@pytest.mark.parametrize("way", ["real_time", "lockstep", "xml", "yaml"])
def test_expert_succeeds_in_sim_and_no_process_is_left_behind(way: str, ros_domain: int, tmp_path: Path) -> None:
    pytest.importorskip("launch_ros.actions", reason="launch and launch_ros are not on PyPI")
    rclpy = pytest.importorskip("rclpy")
    from dagger_ros.msg import EpisodeEvent
    from dagger_ros.nodes.qos import EVENT_QOS
    from graph import addresses_of

    succeeded: list[Any] = []

    def on_episode(event: Any) -> None:
        if event.event == EpisodeEvent.FINISHED and event.success:
            succeeded.append(event)

    context = rclpy.context.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    listener = rclpy.create_node("listener", context=context)
    listener.create_subscription(EpisodeEvent, "sim/episode", on_episode, EVENT_QOS)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(listener)
    file, out = ROOT / "launch/sim.launch.py", tmp_path / "round"
    if way in ("xml", "yaml"):
        if not importlib.metadata.entry_points(group="launch.frontend.launch_extension"):
            pytest.skip("launch_xml and launch_yaml are not on PyPI")
        including = tmp_path / f"top.launch.{way}"
        including.write_text({"xml": XML, "yaml": YAML}[way].format(file=file, out=out))
        launch = Running(tmp_path, including)
    else:
        lockstep = str(way == "lockstep").lower()
        launch = Running(tmp_path, file, f"lockstep:={lockstep}", f"out:={out}", "namespace:=sim")
    try:
        end_ns = listener.get_clock().now().nanoseconds + int(PATIENCE_S * 1e9)
        while not succeeded:
            executor.spin_once(timeout_sec=1.0)
            assert launch.process.poll() is None, launch.log
            assert listener.get_clock().now().nanoseconds < end_ns, launch.log
        members = launch.members()
        addresses = {address for pid in members for address in addresses_of(pid)}
    finally:
        code = launch.end()
        executor.shutdown()
        listener.destroy_node()
        context.try_shutdown()
    assert code == 0, launch.log
    assert len(members) == 5  # launch, which has a node too, and four of ours
    assert not {a for a in addresses if not a.startswith("127.") and a != "239.255.0.1"}
    assert list(out.glob("episodes/*/episode.json"))
    assert (out / "manifest.json").is_file()  # the recorder was told to end, and not killed
    assert launch.members() == []


@pytest.mark.launch
@pytest.mark.ros
@pytest.mark.mujoco
@pytest.mark.slow
def test_node_that_refuses_to_come_up_ends_the_launch_and_is_named(ros_domain: int, tmp_path: Path) -> None:
    pytest.importorskip("launch_ros.actions", reason="launch and launch_ros are not on PyPI")
    pytest.importorskip("rclpy")
    policy = weak_policy("peg", tmp_path / "pi_000")
    launch = Running(tmp_path, ROOT / "launch/sim.launch.py", "task:=lane", f"policy:={policy}", "namespace:=sim")
    assert launch.process.wait(PATIENCE_S) == 1
    assert "this policy was trained under another contract" in launch.log
    assert "/sim/policy refused to be configured, for the reason that it gives above; all are stopped" in launch.log
    assert "Traceback" not in launch.log
    assert launch.members() == []
