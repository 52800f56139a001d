"""Bags that were recorded elsewhere: what is made of them, and which are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from conftest import ROOT, contract_path
from dagger_ros.cli import main
from dagger_ros.contract import NEVER_NS, Contract, DaggerError, Label, Mode, RowLayout, load_contract
from dagger_ros.dataset import (
    BagWriter,
    ForeignBag,
    Reading,
    finish_round,
    import_bag,
    labelled_frames,
    load_round,
    prepare_import,
    read_episode,
    read_rows,
    training_episodes,
    verify_round,
)
from dagger_ros.dataset.align import COMMAND, Sample, align
from dagger_ros.supervisor import Reason, Response, response_bits

STORE = get_typestore(Stores.ROS2_KILTED)
DECISION = "dagger_ros/msg/GateDecision"
DEFINITIONS = {DECISION: (ROOT / "msg" / "GateDecision.msg").read_text()}
PEG = contract_path("peg")
PERIOD_NS, START_NS = 50_000_000, 1_700_000_000_000_000_000
JOINTS = [f"j{i}" for i in range(1, 7)]
TYPES = {
    "perception/peg_in_hole": "geometry_msgs/msg/PoseStamped",
    "tool_pose": "geometry_msgs/msg/PoseStamped",
    "joint_states": "sensor_msgs/msg/JointState",
    "ground_truth/peg_in_hole": "geometry_msgs/msg/PoseStamped",
    "command": "geometry_msgs/msg/TwistStamped",
}
TICKS = 40
OFFSETS = np.array([0.0, 0.1, -0.1])

# Topic, recorded time in ns, message.
Recorded = tuple[str, int, Any]


def new(type_: str, **fields: Any) -> Any:
    return STORE.types[type_](**fields)


def header(stamp_ns: int) -> Any:
    sec, nanosec = divmod(stamp_ns, 10**9)
    stamp = new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return new("std_msgs/msg/Header", stamp=stamp, frame_id="base")


def vector(values: Iterable[float], type_: str = "geometry_msgs/msg/Vector3") -> Any:
    return new(type_, **dict(zip("xyz", map(float, values), strict=True)))


def pose(stamp_ns: int, xyz: Iterable[float]) -> Any:
    orientation = new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    at = new("geometry_msgs/msg/Pose", position=vector(xyz, "geometry_msgs/msg/Point"), orientation=orientation)
    return new("geometry_msgs/msg/PoseStamped", header=header(stamp_ns), pose=at)


def joints(stamp_ns: int, position: Any, velocity: Any, effort: Any) -> Any:
    """In another order than the contract's: joints are found by name."""
    given = {
        name: np.array(v[::-1], float)
        for name, v in zip(("position", "velocity", "effort"), (position, velocity, effort), strict=True)
    }
    return new("sensor_msgs/msg/JointState", header=header(stamp_ns), name=JOINTS[::-1], **given)


def twist(stamp_ns: int, xyz: Iterable[float]) -> Any:
    about = new("geometry_msgs/msg/Twist", linear=vector(xyz), angular=vector((0, 0, 0)))
    return new("geometry_msgs/msg/TwistStamped", header=header(stamp_ns), twist=about)


def messages_of(rows: Any, layout: RowLayout, *, offset_ns: int = START_NS) -> list[Recorded]:
    """What a recorder would have received: observations a little after their stamp, then the command."""
    messages: list[Recorded] = []
    for row in rows:
        stamp = int(row["time_ns"]) + offset_ns
        peg, tool, position, velocity, effort, true = (layout.stream(row, i) for i in range(6))
        messages += [
            ("perception/peg_in_hole", stamp + 100, pose(stamp, peg)),
            ("tool_pose", stamp + 200, pose(stamp, tool)),
            ("joint_states", stamp + 300, joints(stamp, position, velocity, effort)),
            ("ground_truth/peg_in_hole", stamp + 400, pose(stamp, true)),
            ("command", stamp + 500, twist(stamp + 450, row["executed_action"])),
        ]
    return messages


def synthetic(ticks: int = TICKS) -> list[Recorded]:
    """Of values that tell which tick they are of."""
    layout = RowLayout(load_contract(PEG))
    rows = layout.new(ticks)
    rows["time_ns"] = PERIOD_NS * np.arange(ticks)
    k = np.arange(ticks)[:, None] / 1000
    rows["observation"] = k + np.arange(layout.observation_size)
    rows["privileged"], rows["executed_action"] = k, k + OFFSETS
    return messages_of(rows, layout)


def write(
    path: Path,
    messages: list[Recorded],
    *,
    storage: StoragePlugin = StoragePlugin.MCAP,
    compression: CompressionMode = CompressionMode.NONE,
    types: dict[str, str] = TYPES,
    store: Any = STORE,
    prefix: str = "/",
) -> Path:
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic: writer.add_connection(prefix + topic, type_, typestore=store) for topic, type_ in types.items()
        }
        for topic, recorded_ns, message in messages:
            writer.write(connections[topic], recorded_ns, store.serialize_cdr(message, types[topic]))
    return path


def read(path: Path, contract: Contract | None = None, **options: Any) -> ForeignBag:
    return ForeignBag(path, RowLayout(contract or load_contract(PEG)), Reading(**options))


def imported(bag: ForeignBag, out: Path, **options: Any) -> Path:
    """Imports one bag and finishes the round; gives its folder."""
    contract = load_contract(PEG)
    folder = prepare_import(out, PEG, contract, [bag.path])
    given = {"operator_id": "ada", "success": True, "failure": ""} | options
    import_bag(bag, folder, PEG, contract, DEFINITIONS, **given)
    finish_round(folder, contract)
    return folder


def changed(messages: list[Recorded], topic: str, change: Callable[[int, Recorded], Recorded | None]) -> list[Recorded]:
    """Messages of one topic changed, or left out where None comes; by their number."""
    result, number = [], 0
    for message in messages:
        if message[0] == topic:
            after, number = change(number, message), number + 1
            if after is None:
                continue
            message = after
        result.append(message)
    return sorted(result, key=lambda m: m[1])


STORAGES = [
    (storage, compression)
    for storage in StoragePlugin
    for compression in (CompressionMode.NONE, CompressionMode.FILE, CompressionMode.MESSAGE)
]


def test_all_storages_give_the_labels_and_observations_that_went_in(tmp_path: Path) -> None:
    messages, found = synthetic(), set()
    for i, (storage, compression) in enumerate(STORAGES):
        bag = read(write(tmp_path / str(i), messages, storage=storage, compression=compression))
        found.add(bag.rows.tobytes())
        assert sum(bag.counts.values()) == len(messages)
    assert len(found) == 1
    rows = bag.rows
    # The first command comes behind the first observations; from then on each tick sees those of its own period.
    k = np.arange(TICKS)[:, None] / 1000
    assert len(rows) == TICKS
    assert (rows["observation"] == k + np.arange(rows["observation"].shape[1])).all()
    assert (rows["expert_action"] == k + OFFSETS).all()
    assert (rows["executed_action"] == rows["expert_action"]).all()
    assert (rows["label_source"] == Label.EXPERT).all()
    assert (rows["mode"] == Mode.EXPERT).all()
    assert bag.unlabelled == {}


def test_import_is_an_episode_like_a_recorded_one_and_says_where_it_came_from(tmp_path: Path) -> None:
    bag = read(write(tmp_path / "bag", synthetic()))
    folder = imported(bag, tmp_path / "run")
    contract = load_contract(PEG)
    assert folder == tmp_path / "run/rounds/000"
    assert (tmp_path / "run/contract.yaml").read_bytes() == PEG.read_bytes()
    rows = read_rows(folder / "episodes/000000/bag", RowLayout(contract))
    for name in rows.dtype.names or ():
        if name not in ("operator_id", "round", "episode"):
            assert rows[name].tobytes() == bag.rows[name].tobytes(), name
    assert {(r["operator_id"], r["round"], r["episode"], r["seed"]) for r in rows} == {(b"ada", 0, 0, -1)}
    info = read_episode(folder / "episodes/000000")
    assert info.imported == {"path": str(tmp_path / "bag"), "sha256": bag.sha256}
    assert bag.sha256.keys() == {"bag.mcap", "metadata.yaml"}
    assert (info.success, info.rule, info.operator_id) == (True, "bc", "ada")
    assert info.messages == {**dict.fromkeys(TYPES, TICKS), "supervisor/decision": TICKS}
    manifest = verify_round(folder, contract)
    assert (manifest.rule, manifest.labels, manifest.operator_id) == ("bc", TICKS, "ada")
    assert manifest.episodes[0].takeover_reasons == {"demonstration": 1}


def test_original_messages_are_in_the_new_bag_unread(tmp_path: Path) -> None:
    messages = synthetic()
    folder = imported(read(write(tmp_path / "bag", messages)), tmp_path / "run")
    with Reader(folder / "episodes/000000/bag") as reader:
        wanted = [c for c in reader.connections if c.msgtype != DECISION]
        there = [(c.topic, time_ns, bytes(data)) for c, time_ns, data in reader.messages(connections=wanted)]
    assert there == [("/" + t, time_ns, bytes(STORE.serialize_cdr(m, TYPES[t]))) for t, time_ns, m in messages]


@pytest.mark.mujoco
def test_imported_demonstration_is_trained_on_like_the_rollout_that_it_was_recorded_from(tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    from dagger_ros.control import ControlTick
    from dagger_ros.sim import load_plant, rollout
    from dagger_ros.sim.experts import make_labeller
    from dagger_ros.supervisor import Gate, make_rule

    contract = load_contract(PEG)
    layout = RowLayout(contract)
    gate = Gate(contract, make_rule("bc", round_index=0), auto_arm=True)
    control = ControlTick(layout, gate, make_labeller("scripted", contract), None)
    rows, status = rollout(load_plant(contract, PEG), control, layout, seed=3, ticks=contract.horizon_ticks)
    assert status.success
    folder = imported(read(write(tmp_path / "bag", messages_of(rows, layout))), tmp_path / "run")
    observations, labels = labelled_frames(training_episodes([folder], contract))
    assert observations.tobytes() == rows["observation"].tobytes()
    assert labels.tobytes() == rows["executed_action"].tobytes()


def test_second_import_is_added_and_the_same_bag_is_not(tmp_path: Path) -> None:
    imported(read(write(tmp_path / "a", synthetic())), tmp_path / "run")
    folder = imported(read(write(tmp_path / "b", synthetic(30))), tmp_path / "run", success=False, failure="jammed")
    entries = load_round(folder, load_contract(PEG)).episodes
    assert [(e.episode, e.ticks, e.failure) for e in entries] == [(0, 40, ""), (1, 30, "jammed")]
    shutil.copytree(tmp_path / "a", tmp_path / "c")
    with pytest.raises(DaggerError, match=r"c: expected a bag that was not imported yet; it is episode 0 of"):
        imported(read(tmp_path / "c"), tmp_path / "run")


# What a tick sees.


def samples(contract: Contract, *, of: dict[int, list[tuple[float, float, float]]]) -> list[Sample]:
    """By stream: (value, stamp, time of receipt), both in periods; without an entry one in each period for 3 s."""
    result = []
    for i, stream in enumerate([*contract.streams.values(), contract.action]):
        index = i if i < len(contract.streams) else COMMAND
        for value, stamp, received in of.get(index, [(0.01, k, k) for k in range(60)]):
            values = np.full(len(stream.dimensions), value)
            result.append(Sample(index, values, round(stamp * PERIOD_NS), round(received * PERIOD_NS)))
    return sorted(result, key=lambda s: s.received_ns)


def test_tick_sees_what_had_come_by_then_and_nothing_later(peg: Contract) -> None:
    layout = RowLayout(peg)
    # What is received at the time of the tick counts; what comes just behind it does not, whatever its stamp.
    late = [(float(k), k, k + 1e-6) for k in range(60)]
    on_time = [(float(k), k - 0.5, k) for k in range(60)]
    rows, _ = align(samples(peg, of={0: late, 1: on_time}), layout)
    first = round(1e-6 * PERIOD_NS)
    assert rows["time_ns"].tolist() == [first + k * PERIOD_NS for k in range(len(rows))]
    assert [layout.stream(row, 0)[0] for row in rows[:3]] == [0, 1, 2]
    assert [layout.stream(row, 1)[0] for row in rows[:3]] == [0, 1, 2]
    early = [(float(k), k, k - 1e-6) for k in range(60)]
    rows, _ = align(samples(peg, of={0: late, 1: early, 2: [(1.0, k, k + 0.5) for k in range(60)]}), layout)
    assert [layout.stream(row, 0)[0] for row in rows[:3]] == [0, 1, 2]
    assert [layout.stream(row, 2)[0] for row in rows[:3]] == [1, 1, 1]


def test_rows_begin_when_everything_that_the_policy_sees_and_the_command_have_come(peg: Contract) -> None:
    from_there = [(0.01, k, k) for k in range(5, 60)]
    layout = RowLayout(peg)
    for index in (0, COMMAND):
        rows, _ = align(samples(peg, of={index: from_there}), layout)
        assert rows["time_ns"][0] == 5 * PERIOD_NS
        assert len(rows) == 55
    # What only an expert sees is not waited for.
    assert align(samples(peg, of={5: from_there}), layout)[0]["time_ns"][0] == 0
    assert len(align(samples(peg, of={COMMAND: []}), layout)[0]) == 0
    assert len(align([], layout)[0]) == 0


@pytest.mark.parametrize("by", ["receipt", "stamp"])
def test_tick_with_a_stale_stream_is_locked_and_no_label(peg: Contract, by: str) -> None:
    # From tick 20 to 29 nothing newer than that of 19 comes; 0.25 s are allowed.
    quiet = [(0.01, k, k) for k in range(60) if not 20 <= k < 30]
    if by == "stamp":
        quiet += [(0.01, 19 + 1e-6 * (k - 19), k) for k in range(20, 30)]
    rows, _ = align(samples(peg, of={1: quiet}), RowLayout(peg))
    stale = np.zeros(60, bool)
    stale[25:30] = True
    assert ((rows["reasons"] & np.uint64(Reason.OBSERVATION_STALE) != 0) == stale).all()
    assert (rows["mode"] == np.where(stale, Mode.LOCKED, Mode.EXPERT)).all()
    assert (rows["label_source"] == np.where(stale, Label.NONE, Label.EXPERT)).all()
    assert (rows["intervention"] == [1] * 25 + [0] * 5 + [2] * 30).all()
    assert np.isfinite(rows["executed_action"]).all()  # it was sent all the same


def test_value_that_is_no_number_locks(peg: Contract) -> None:
    broken = [(np.nan if k == 30 else 0.01, k, k) for k in range(60)]
    rows, _ = align(samples(peg, of={0: broken}), RowLayout(peg))
    assert np.flatnonzero(rows["mode"] == Mode.LOCKED).tolist() == [30]
    assert rows["reasons"][30] & np.uint64(Reason.OBSERVATION_NOT_FINITE)
    assert rows["label_source"][30] == Label.NONE


@pytest.mark.parametrize(
    ("command", "without", "reason", "mode"),
    [
        # 0.1 s are allowed.
        ([(0.1, k, k) for k in range(60) if not 20 <= k < 30], range(22, 30), Reason.EXPERT_STALE, Mode.HOLD),
        ([(np.inf if k == 20 else 0.1, k, k) for k in range(60)], [20], Reason.EXPERT_NOT_FINITE, Mode.HOLD),
        ([(0.2401 if k == 20 else 0.24, k, k) for k in range(60)], [20], Reason.CLAMPED_BOUND, Mode.EXPERT),
        ([(0.1, k + 0.3 * (k == 20), k) for k in range(60)], [20], Reason.EXPERT_FUTURE, Mode.HOLD),
    ],
)
def test_command_that_cannot_be_learned_from_is_no_label(
    peg: Contract, command: Any, without: Any, reason: Reason, mode: Mode
) -> None:
    rows, _ = align(samples(peg, of={COMMAND: command}), RowLayout(peg))
    assert np.flatnonzero(rows["label_source"] == Label.NONE).tolist() == list(without)
    assert (rows["mode"][list(without)] == mode).all()
    assert (rows["reasons"][list(without)] & np.uint64(reason) != 0).all()
    assert (np.isfinite(rows["executed_action"][list(without)]).all() == (mode is Mode.EXPERT)).all()


def test_message_that_comes_out_of_order_is_left_out_and_counted(peg: Contract) -> None:
    order = [(float(k), k, k) for k in range(60)]
    order[30] = (99.0, 20.5, 30)
    rows, tallies = align(samples(peg, of={0: order}), RowLayout(peg))
    tally = tallies[0]
    assert (tally.messages, tally.out_of_order, tally.first_out_of_order, tally.gaps) == (60, 1, 30, 1)
    assert rows["observation"][30, 0] == 29
    assert rows["reasons"][30] & np.uint64(Reason.OBSERVATION_OUT_OF_ORDER)
    assert rows["label_source"][30] == Label.EXPERT


@pytest.mark.ros
@pytest.mark.mujoco
@pytest.mark.usefixtures("ros_domain")
@pytest.mark.parametrize(
    "perturbation", [{}, {"observation_delay_s": 0.1, "observation_drop": 0.2, "observation_noise": 1.0}]
)
def test_rows_of_a_recorded_graph_are_those_that_it_decided(perturbation: dict[str, float], tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    from dagger_ros.nodes.lockstep import LockstepGraph

    with LockstepGraph(PEG, rule="bc", round_index=0, out=tmp_path / "round", perturbation=perturbation) as graph:
        for seed in (5, 6):
            graph.run_episode(seed)
    contract = load_contract(PEG)
    layout = RowLayout(contract)
    for i in range(2):
        path = tmp_path / f"round/episodes/{i:06d}/bag"
        live = read_rows(path, layout)
        rows = read(path, contract).rows
        seen = live["receive_ns"][:, layout.seen_by_policy] != NEVER_NS
        live = live[np.argmax(seen.all(axis=1)) :]  # before, not everything had come
        for name in ("time_ns", "monotonic_ns", "observation", "privileged", "stamp_ns", "receive_ns"):
            assert rows[name].tobytes() == live[name].tobytes(), name
        if not perturbation:
            for name in ("mode", "label_source", "executed_action", "intervention", "intervention_reason"):
                assert rows[name].tobytes() == live[name].tobytes(), name
            # What the gate changed before the command went out cannot be seen in the command.
            unlimited = ~np.uint64(response_bits(Response.LIMIT))
            assert (rows["reasons"] == live["reasons"] & unlimited).all()


# What is refused.


def refused(path: Path, tmp_path: Path, match: str, **options: Any) -> None:
    with pytest.raises(DaggerError, match=match) as caught:
        imported(read(path, **options), tmp_path / "run")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_what_is_no_bag_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no bag")
    refused(tmp_path / "nowhere", tmp_path, r"nowhere: expected a rosbag2 folder with its metadata.yaml, or an .mcap")
    refused(tmp_path / "empty", tmp_path, r"empty: expected a rosbag2 folder .*`ros2 bag reindex`")
    refused(tmp_path / "notes.txt", tmp_path, r"notes.txt: expected a whole rosbag2 bag; .*Unrecognized storage format")


@pytest.mark.parametrize("storage", list(StoragePlugin))
@pytest.mark.parametrize("compression", [CompressionMode.NONE, CompressionMode.FILE])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_bag_is_refused(
    storage: StoragePlugin, compression: CompressionMode, share: float, tmp_path: Path
) -> None:
    bag = write(tmp_path / "bag", synthetic(), storage=storage, compression=compression)
    (file,) = (f for f in bag.iterdir() if f.name != "metadata.yaml")
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    refused(bag, tmp_path, r"bag: .*it is damaged or cut short|bag: .*there is none")


def test_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    plain = read(write(tmp_path / "plain", synthetic()))
    bag = tmp_path / "bag"
    writer = BagWriter(bag, plain.topics, {}, {})  # with checksums, which the writer of rosbags leaves out
    for message in plain.messages():
        writer.write(*message)
    writer.close()
    file = bag / "bag.mcap"
    whole, rows = file.read_bytes(), read(bag).rows.tobytes()
    refusals = []
    for place in range(0, len(whole), len(whole) // 150):
        data = bytearray(whole)
        data[place] ^= 4
        file.write_bytes(data)
        try:
            assert read(bag).rows.tobytes() == rows, place
        except DaggerError as error:
            refusals.append(str(error))
    assert len(refusals) > 50
    assert all(words.startswith(str(bag)) for words in refusals)


def test_message_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    bag, messages = tmp_path / "bag", synthetic()
    with Writer(bag, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        for topic, type_ in TYPES.items():
            connection = writer.add_connection(topic, type_, typestore=STORE)
            for i, (_, time_ns, message) in enumerate(m for m in messages if m[0] == topic):
                data = bytes(STORE.serialize_cdr(message, type_))
                writer.write(connection, time_ns, data[:20] if (topic, i) == ("tool_pose", 7) else data)
    refused(bag, tmp_path, r"tool_pose, message 7: expected geometry_msgs/msg/PoseStamped; it cannot be read")


def test_messages_that_the_index_has_and_the_file_has_not_are_missed(tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", synthetic())
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    about["rosbag2_bagfile_information"]["topics_with_message_count"][2]["message_count"] += 3
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    refused(bag, tmp_path, r"joint_states: expected 43 messages as the bag's index says, found 40")


def test_missing_topic_is_refused_with_what_is_there(tmp_path: Path) -> None:
    bag = write(
        tmp_path / "bag",
        [m for m in synthetic() if m[0] != "tool_pose"],
        types={t: type_ for t, type_ in TYPES.items() if t != "tool_pose"},
    )
    match = (
        r"tool_pose: expected messages of this topic of contract peg, found none; the bag has /command .*--map FROM:="
    )
    refused(bag, tmp_path, match)
    silent = write(tmp_path / "silent", [m for m in synthetic() if m[0] != "command"])
    refused(silent, tmp_path, r"silent: command: expected messages of this topic")


def test_renamed_topics_are_found(tmp_path: Path) -> None:
    names = {topic: f"robot1/{topic}" for topic in TYPES}
    messages = [(names[t], time_ns, m) for t, time_ns, m in synthetic()]
    bag = write(tmp_path / "bag", messages, types={names[t]: type_ for t, type_ in TYPES.items()})
    refused(bag, tmp_path, r"the bag has /robot1/command")
    renamed = {new_: old for old, new_ in names.items()}
    plain = write(tmp_path / "plain", synthetic())
    assert read(bag, renamed=renamed).rows.tobytes() == read(plain).rows.tobytes()
    refused(
        bag, tmp_path, r"--map command: expected a topic of the bag; it has /robot1/command", renamed={"command": "x"}
    )
    spare = [("spare", time_ns, m) for t, time_ns, m in synthetic() if t == "tool_pose"]
    two = write(
        tmp_path / "two",
        sorted([*synthetic(), *spare], key=lambda m: m[1]),
        types=TYPES | {"spare": TYPES["tool_pose"]},
    )
    refused(
        two,
        tmp_path,
        r"tool_pose: expected one topic of this name, got /spare, /tool_pose; see --map",
        renamed={"spare": "tool_pose"},
    )


def test_command_of_another_topic_and_type_is_the_label(tmp_path: Path) -> None:
    array = "std_msgs/msg/Float64MultiArray"
    layout = new("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    messages = [
        (
            "teleop",
            time_ns,
            new(array, layout=layout, data=np.array([m.twist.linear.x, m.twist.linear.y, m.twist.linear.z])),
        )
        for t, time_ns, m in synthetic()
        if t == "command"
    ] + [m for m in synthetic() if m[0] != "command"]
    bag = write(tmp_path / "bag", sorted(messages, key=lambda m: m[1]), types={**TYPES, "teleop": array})
    found = read(bag, action_topic="teleop", action_type=array)
    assert (
        found.rows["expert_action"].tobytes()
        == read(write(tmp_path / "x", synthetic())).rows["expert_action"].tobytes()
    )
    assert "command" not in found.topics
    refused(
        bag, tmp_path, r"teleop: expected type geometry_msgs/msg/TwistStamped, found std_msgs", action_topic="teleop"
    )
    with pytest.raises(DaggerError, match=r"action topic: expected a type from which vx, vy, vz can be read"):
        read(bag, action_topic="teleop", action_type="sensor_msgs/msg/Joy")


def test_topic_of_another_type_is_refused(tmp_path: Path) -> None:
    messages = [(t, n, m.twist if t == "command" else m) for t, n, m in synthetic()]
    bag = write(tmp_path / "bag", messages, types={**TYPES, "command": "geometry_msgs/msg/Twist"})
    refused(bag, tmp_path, r"command: expected type geometry_msgs/msg/TwistStamped, found geometry_msgs/msg/Twist$")


@pytest.mark.parametrize("storage", list(StoragePlugin))
def test_type_with_another_definition_is_refused_with_the_field(storage: StoragePlugin, tmp_path: Path) -> None:
    from rosbags.typesys import get_types_from_msg

    store = get_typestore(Stores.ROS2_KILTED)
    name = "geometry_msgs/msg/Vector3"
    store.fielddefs.update(get_types_from_msg("float32 x\nfloat64 y\nfloat64 z\n", name))
    bag = write(tmp_path / "bag", synthetic(), storage=storage, store=store)
    match = (
        r"command: expected geometry_msgs/msg/TwistStamped as ROS defines it; .* `float32 x` in place of `float64 x`"
    )
    refused(bag, tmp_path, match)


def test_bag_without_definitions_is_read_as_standard_types(tmp_path: Path) -> None:
    """As Humble writes it."""
    import sqlite3

    bag = write(tmp_path / "bag", synthetic(), storage=StoragePlugin.SQLITE3)
    expected = read(bag).rows.tobytes()
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("UPDATE schema SET schema_version = 3")
        database.execute("ALTER TABLE topics DROP COLUMN type_description_hash")
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    info = about["rosbag2_bagfile_information"]
    info["version"] = 5
    for topic in info["topics_with_message_count"]:
        del topic["topic_metadata"]["type_description_hash"]
        topic["topic_metadata"]["offered_qos_profiles"] = ""
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    assert read(bag).rows.tobytes() == expected
    info["topics_with_message_count"][0]["topic_metadata"]["type_description_hash"] = "RIHS01_00"
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    refused(bag, tmp_path, r"peg_in_hole: expected .* as ROS defines it; .* its hash is RIHS01_00, not RIHS01_10f3")


def test_recorded_times_that_decrease_are_refused(tmp_path: Path) -> None:
    """Of a bag that was split, in the wrong order."""
    messages = synthetic()
    first, second = (write(tmp_path / name, part) for name, part in (("a", messages[100:]), ("b", messages[:100])))
    about = yaml.safe_load((first / "metadata.yaml").read_text())
    info = about["rosbag2_bagfile_information"]
    shutil.copy(second / "b.mcap", first)
    info["relative_file_paths"].append("b.mcap")
    for topic in info["topics_with_message_count"]:
        topic["message_count"] = TICKS
    (first / "metadata.yaml").write_text(yaml.safe_dump(about))
    refused(
        first, tmp_path, r"peg_in_hole, message 20: expected recorded times that do not decrease; .* 1.950 s before"
    )


def test_stamps_that_decrease_are_refused_above_one_percent(tmp_path: Path) -> None:
    def back(numbers: set[int]) -> list[Recorded]:
        def change(i: int, message: Recorded) -> Recorded:
            stamp = message[1] - (120_000_000 if i in numbers else 0)
            return message[0], message[1], pose(stamp, (0, 0, 0))

        return changed(synthetic(200), "tool_pose", change)

    bag = read(write(tmp_path / "good", back({50, 100})))
    assert {s.name: s.tally.out_of_order for s in bag.streams}["tool_position"] == 2
    refused(
        write(tmp_path / "bad", back({50, 100, 150})),
        tmp_path,
        r"tool_pose: expected header stamps that do not decrease; those of 3 of 200 messages do, first message 50",
    )


@pytest.mark.parametrize("offset_s", [3600.0, -3600.0, 0.3])
def test_stamps_of_another_clock_are_refused_and_the_recorded_time_is_taken_on_request(
    offset_s: float, tmp_path: Path
) -> None:
    layout = RowLayout(load_contract(PEG))
    plain = read(write(tmp_path / "plain", synthetic()))
    rows = layout.new(TICKS)
    for name in ("observation", "privileged", "executed_action"):
        rows[name] = plain.rows[name]
    rows["time_ns"] = PERIOD_NS * np.arange(TICKS)
    late = round(offset_s * 1e9)
    messages = [(t, time_ns + late, m) for t, time_ns, m in messages_of(rows, layout)]
    bag = write(tmp_path / "bag", messages)
    words = f"{abs(offset_s):.3f} s {'behind' if offset_s > 0 else 'ahead'}"
    refused(bag, tmp_path, rf"clock by which the bag was recorded; they are {words} .* --clock received")
    found = read(bag, by_header=False).rows
    assert (found["label_source"] == Label.EXPERT).all()
    assert found["observation"].tobytes() == plain.rows["observation"].tobytes()
    assert (found["stamp_ns"] == found["receive_ns"]).all()


def test_missing_camera_is_refused(tmp_path: Path) -> None:
    contract = load_contract(PEG)
    content = contract.model_dump(mode="json", by_alias=True)
    image = {"topic": "camera", "type": "sensor_msgs/msg/Image", "frame": "tool", "rate_hz": 10.0, "max_age_s": 0.3}
    content["cameras"] = {"wrist": image | {"width": 4, "height": 2}}
    with_camera = Contract.model_validate(content)
    bag = write(tmp_path / "bag", synthetic())
    with pytest.raises(DaggerError, match=r"bag: camera: expected messages of this topic of contract peg, found none"):
        read(bag, with_camera)
    pixels = {
        "height": 2,
        "width": 4,
        "encoding": "rgb8",
        "is_bigendian": 0,
        "step": 12,
        "data": np.arange(24, dtype="u1"),
    }
    pictures = [("camera", m[1] + 1, new(image["type"], header=header(m[1]), **pixels)) for m in synthetic()[::5]]
    seen = write(
        tmp_path / "seen",
        sorted(synthetic() + pictures, key=lambda m: m[1]),
        types={**TYPES, "camera": image["type"]},
    )
    assert read(seen, with_camera).counts["camera"] == TICKS
    assert read(seen, with_camera).rows.tobytes() == read(bag).rows.tobytes()


@pytest.mark.parametrize(
    ("factor", "match"),
    [
        (1000.0, r"command: .* bounds, none of 40 is; vy is from 100 to 139, .*-0.24 to 0.24 m/s: another unit\?"),
        (
            np.nan,
            r"command: expected commands with vx, vy, vz; in none of the 40 messages are they all there and finite",
        ),
    ],
)
def test_command_that_is_never_within_the_bounds_is_refused(factor: float, match: str, tmp_path: Path) -> None:
    def change(_: int, message: Recorded) -> Recorded:
        about = message[2].twist.linear
        values = factor * np.array([about.x, about.y, about.z])
        return message[0], message[1], twist(message[1], values)

    refused(write(tmp_path / "bag", changed(synthetic(), "command", change)), tmp_path, match)


def test_bag_of_less_than_a_second_is_refused(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "long", synthetic(20))).rows) == 20
    match = r"expected at least a second of control ticks \(20\) in which .* had come; there are 19"
    refused(write(tmp_path / "short", synthetic(19)), tmp_path, match)


def test_messages_days_apart_are_refused(tmp_path: Path) -> None:
    messages = synthetic()
    topic, time_ns, message = messages[-1]
    messages[-1] = (topic, time_ns + 25 * 3600 * 10**9, message)
    refused(write(tmp_path / "bag", messages), tmp_path, r"bag: messages that are 25 h apart, at most 24 h are allowed")


# Where to.


def prepared(out: Path, *, task: str = "peg", bag: Path = Path("bag")) -> Path:
    path = contract_path(task)
    return prepare_import(out, path, load_contract(path), [bag])


def test_bag_inside_out_is_refused(tmp_path: Path) -> None:
    for bag in (tmp_path / "run/bag", tmp_path / "run", tmp_path / "run/../run/x"):
        with pytest.raises(DaggerError, match=r"expected a bag outside of --out"):
            prepared(tmp_path / "run", bag=bag)


def test_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DaggerError, match="expected a folder that is new or empty, or that of a run; it is neither"):
        prepared(tmp_path)
    with pytest.raises(DaggerError, match=r"notes.txt: expected the folder of a run or of a round"):
        prepared(tmp_path / "notes.txt")
    with pytest.raises(DaggerError, match="expected round 000, since demonstrations are what a run begins with"):
        prepared(tmp_path / "rounds/001")
    assert prepared(tmp_path / "rounds/000") == tmp_path / "rounds/000"


def test_round_of_another_contract_or_rule_or_that_was_recorded_here_is_refused(tmp_path: Path) -> None:
    import json

    folder = imported(read(write(tmp_path / "bag", synthetic())), tmp_path / "run")
    for out in (tmp_path / "run", folder):
        with pytest.raises(DaggerError, match=r"contract.yaml: expected contract .* \(lane\), found .* \(peg\)"):
            prepared(out, task="lane")
        assert prepared(out) == folder
    (tmp_path / "run/contract.yaml").unlink()
    with pytest.raises(DaggerError, match=r"expected a round under contract .* \(lane\), found .* \(peg\)"):
        prepared(folder, task="lane")
    about = folder / "episodes/000000/episode.json"
    text = about.read_text()
    about.write_text(json.dumps(json.loads(text) | {"imported": {}}))
    with pytest.raises(DaggerError, match=r"expected a round of nothing but imports .* episode 0 is recorded here"):
        prepared(tmp_path / "run")
    about.write_text(text)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"rule": "hg"}))
    with pytest.raises(DaggerError, match="expected a round of rule bc, found one of rule hg"):
        prepared(tmp_path / "run")


# The verb.


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = 0
    try:
        main(["import", *arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    text = capsys.readouterr()
    assert "Traceback" not in text.err
    return status, text.out, text.err


def test_verb_says_of_each_bag_what_was_made_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ament_index_python")
    a, b = write(tmp_path / "a", synthetic()), write(tmp_path / "b", synthetic(30))
    quiet = changed(synthetic(60), "tool_pose", lambda i, m: None if 20 <= i < 30 else m)
    c = write(tmp_path / "c", quiet)
    common = ["--contract", str(PEG), "--out", str(tmp_path / "run"), "--operator-id", "ada", "--success"]
    status, out, err = run([str(a), str(c), *common], capsys)
    assert (status, err) == (0, "")
    assert f"{a}: episode 0, 200 messages, 40 ticks at 20 Hz, 40 labels; without one: none" in out
    assert f"{c}: episode 1, 290 messages, 60 ticks at 20 Hz, 54 labels; without one: 6 OBSERVATION_STALE" in out
    (line,) = (line for line in out.splitlines()[::-1] if "tool_position" in line and line.split()[-1] != "0")
    assert line.split()[-4:] == ["1", "0", "0", "6"]
    assert f"{tmp_path / 'run/rounds/000'}: 2 episodes in its manifest" in out
    # One more, and one that is refused: what was done is kept and said.
    wrong = write(tmp_path / "wrong", synthetic(5))
    status, out, err = run([str(b), str(wrong), str(tmp_path / "later"), *common], capsys)
    assert status == 2
    assert "3 episodes in its manifest; a policy that was trained on the manifest before does not know of all" in out
    assert f"dagger-ros import: {wrong}: expected at least a second of control ticks" in err
    assert f"imported: {b}\nnot imported: {wrong}, {tmp_path / 'later'}\n" in err
    assert len(load_round(tmp_path / "run/rounds/000", load_contract(PEG)).episodes) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--failure", "bored"], "failure: expected one of not_found, jammed, got 'bored'"),
        (["--map", "a=b"], "map: expected FROM:=TO, got 'a=b'"),
        (["--operator-id", "x" * 65], "operator-id: expected at most 64 characters, got 65"),
        (["--operator-id", "Zo\u00eb"], "operator-id: expected ASCII characters, got 'Zo\u00eb'"),
        (["--action-topic", "cmd:sensor_msgs/msg/Joy"], "action topic: expected a type from which vx, vy, vz"),
        (["--map", "a:=b"], "--map a: expected a topic of the bag"),
    ],
)
def test_wrong_options_are_said_and_nothing_is_made(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ament_index_python")
    bag = write(tmp_path / "bag", synthetic())
    status, _, err = run([str(bag), "--contract", str(PEG), "--out", str(tmp_path / "run"), *options], capsys)
    assert status == 2
    assert message in err
    assert not (tmp_path / "run").exists()
