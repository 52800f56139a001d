"""The aggregator beside a robot whose streams, disk and earlier episodes are not as they should be."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import rclpy
import yaml
from mcap.reader import make_reader
from rclpy.serialization import serialize_message

from conftest import contract_path
from dagger_ros.contract import Act, DaggerError, DecisionWriter, Mode
from dagger_ros.dataset import BagWriter, read_episode, read_rows, recover_episode, unfinished_episodes
from dagger_ros.msg import EpisodeEvent, GateDecision, HelpRequest, OperatorAct, SimTick
from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.base import LEVEL_ERROR, LEVEL_OK, LEVEL_WARN, message_class
from dagger_ros.nodes.lockstep import LockstepGraph
from dagger_ros.nodes.spin import poll
from dagger_ros.srv import StartEpisode, StopEpisode

PERIOD_NS = 50_000_000


class Recorder:
    """An aggregator whose messages and clock are in the hands of the test."""

    def __init__(self, domain: int, folder: Path, **parameters: Any) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.now_ns = 1_000_000_000
        given = {"contract": str(contract_path("peg")), "out": str(folder)} | parameters
        self.node = AggregatorNode(given, self.context)
        self.node.monotonic_ns = lambda: self.now_ns  # type: ignore[method-assign]
        self.node.robot_ns = lambda: self.now_ns  # type: ignore[method-assign]
        self.contract = self.node.contract
        self._numbers: Counter[str] = Counter()

    def receive(self, topic: str, message: Any, *, lost: int = 0) -> None:
        """Hands a message over as rclpy does, after so many that were lost."""
        self._numbers[topic] += 1 + lost
        info = {"publication_sequence_number": self._numbers[topic], "publisher_gid": {"data": b"writer"}}
        self.node._record(topic, serialize_message(message), info)

    def hear(self, topic: str, *, times: int = 1) -> None:
        types = {stream.topic: stream.type for stream in self.contract.streams.values()}
        for _ in range(times):
            self.receive(topic, message_class(types[topic])())

    def decide(self, mode: Mode = Mode.LOCKED, *, tick: int = 0, lost: int = 0) -> None:
        row = self.node.layout.new(1)[0]
        row["mode"], row["tick"] = mode, tick
        decision = DecisionWriter(GateDecision(), row, self.contract.sha256).fill(row, "")
        self.receive("supervisor/decision", decision, lost=lost)

    def start(self) -> Any:
        return self.node._on_start(StartEpisode.Request(seed=-1), StartEpisode.Response())

    def stop(self, **request: Any) -> Any:
        request = {"success": True, "metric": 1.0} | request
        return self.node._on_stop(StopEpisode.Request(**request), StopEpisode.Response())

    def drive(self, modes: Mapping[int, Mode], *, ticks: int) -> None:
        """Receives a joint state and a decision at each tick from 1, at 20 Hz; each mode lasts until the next one."""
        mode = Mode.POLICY
        for tick in range(1, ticks + 1):
            self.now_ns += PERIOD_NS
            mode = modes.get(tick, mode)
            self.hear("joint_states")
            self.decide(mode, tick=tick)

    def ticks(self, folder: Path) -> list[int]:
        """Of the decisions in a bag."""
        return [int(tick) for tick in read_rows(folder / "bag", self.node.layout)["tick"]]

    def end(self) -> None:
        self.node.destroy_node()
        self.context.try_shutdown()

    def started(self) -> None:
        for topic in self.contract.topics:
            self.hear(topic)
        self.decide()
        assert self.start().success


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "round"


@pytest.fixture
def corrections(ros_domain: int, folder: Path) -> Iterator[Recorder]:
    """That keeps what the expert drives, and a second before."""
    result = Recorder(ros_domain, folder, keep="corrections", before_takeover_s=1)
    yield result
    result.end()


@pytest.fixture
def recorder(ros_domain: int, folder: Path) -> Iterator[Recorder]:
    result = Recorder(ros_domain, folder)
    yield result
    result.end()


def test_episode_does_not_start_without_every_stream(recorder: Recorder, folder: Path) -> None:
    first, *others = recorder.contract.topics
    for topic in others:
        recorder.hear(topic)
    answer = recorder.start()
    assert not answer.success
    assert f"{first} was never received; supervisor/decision was never received" in answer.message
    recorder.decide()
    answer = recorder.start()
    assert not answer.success
    assert answer.message == f"expected every observation and the decisions to come in; {first} was never received"
    recorder.hear(first)
    recorder.now_ns += 5_000_000_000
    recorder.decide()
    for topic in others:
        recorder.hear(topic)
    assert f"{first} was received 5.00 s ago, at most " in recorder.start().message
    assert not folder.exists()
    recorder.hear(first)
    assert recorder.start().success


def test_stream_that_gets_slow_is_a_warning(recorder: Recorder) -> None:
    recorder.started()
    rates = {stream.topic: stream.rate_hz for stream in recorder.contract.streams.values()}
    slow, *others = rates
    assert recorder.node.verdict()[0] == LEVEL_OK  # nothing to compare with yet
    for share, level in ((1.0, LEVEL_OK), (0.5, LEVEL_WARN), (1.0, LEVEL_OK)):
        recorder.now_ns += 1_000_000_000
        recorder.hear(slow, times=round(share * rates[slow]))
        for _ in range(20):
            recorder.decide()
        for topic in others:
            recorder.hear(topic, times=round(rates[topic]))
        found, words, values = recorder.node.verdict()
        assert found == level
        assert (f"{slow} comes at {0.5 * rates[slow]:.1f} Hz, expected {rates[slow]:g} Hz" in words) == (share < 1)
    assert values[slow] == 2.5 * rates[slow]


def test_disk_that_is_nearly_full_is_a_warning(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    level, words, values = recorder.node.verdict()
    assert (level, words) == (LEVEL_OK, "not recording")
    assert float(str(values["free_gb"])) > 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 50, 50_000_000))
    level, words, _ = recorder.node.verdict()
    assert level == LEVEL_WARN
    assert words.startswith("not recording, only 50 MB are free for ")
    recorder.started()
    assert "recording episode 0, only 50 MB are free for " in recorder.node.verdict()[1]


@pytest.mark.parametrize("call", ["write", "close"])
def test_full_disk_ends_the_episode_with_a_reason_and_keeps_the_others(
    call: str, recorder: Recorder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder.started()
    recorder.decide()
    assert recorder.stop().success
    recorder.started()
    recorder.decide()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(BagWriter, call, full)
        recorder.decide()
        answer = recorder.stop()
    assert not answer.success
    assert "recording of episode 1 stopped, its bag is not whole: No space left on device" in answer.message
    level, words, _ = recorder.node.verdict()
    assert (level, words) == (LEVEL_ERROR, answer.message)
    assert recorder.node._event.event == EpisodeEvent.DISCARDED
    assert (folder / "episodes/000000/episode.json").is_file()
    assert (folder / "episodes/000001/.bag.part/bag.mcap").is_file()
    recorder.started()  # there is room again
    recorder.decide()
    assert recorder.stop().success
    assert (folder / "episodes/000002/episode.json").is_file()


def test_what_an_earlier_recorder_left_is_said(
    ros_domain: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = BagWriter(folder / "episodes/000000/bag", {}, {}, {"contract": "x"})
    writer.abandon()
    recorder = Recorder(ros_domain, folder)
    recorder.end()
    assert f"1 episodes in {folder} were not finished; `dagger-ros recover {folder}`" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"keep": "some"}, "keep: expected one of all, corrections, got 'some'"),
        ({"before_takeover_s": -1}, "before_takeover_s: expected 0 to 3600 s, got -1"),
        ({"before_takeover_s": float("inf")}, "before_takeover_s: expected 0 to 3600 s, got inf"),
        ({"before_takeover_s": float("nan")}, "before_takeover_s: expected 0 to 3600 s, got nan"),
    ],
)
def test_parameters_that_cannot_be_are_refused(
    parameters: dict[str, Any], message: str, ros_domain: int, folder: Path
) -> None:
    with pytest.raises(DaggerError, match=message):
        Recorder(ros_domain, folder, **parameters)


def test_corrections_are_kept_with_what_came_shortly_before(corrections: Recorder, folder: Path) -> None:
    corrections.started()
    corrections.drive(
        {100: Mode.EXPERT, 110: Mode.HOLD, 115: Mode.POLICY, 200: Mode.EXPERT, 201: Mode.POLICY}, ticks=250
    )
    assert corrections.stop().success
    episode = folder / "episodes/000000"
    # A second of 20 ticks before each, and the tick that ends it.
    assert corrections.ticks(episode) == [*range(80, 111), *range(180, 202)]
    info = read_episode(episode)
    assert info.keep == "corrections"
    assert info.messages["joint_states"] == info.messages["supervisor/decision"] == 31 + 22
    with (episode / "bag/bag.mcap").open("rb") as file:
        assert next(make_reader(file).iter_metadata()).metadata["keep"] == "corrections"


def test_all_is_kept_unless_something_else_is_asked_for(recorder: Recorder, folder: Path) -> None:
    recorder.started()
    recorder.drive({}, ticks=100)
    assert recorder.stop().success
    assert recorder.ticks(folder / "episodes/000000") == list(range(1, 101))
    assert read_episode(folder / "episodes/000000").keep == "all"


def test_episode_without_a_correction_leaves_nothing_and_says_so(corrections: Recorder, folder: Path) -> None:
    corrections.started()
    corrections.drive({}, ticks=100)
    answer = corrections.stop()
    assert not answer.success
    assert answer.message == "episode 0 discarded: nothing is kept of it: the expert never drove"
    assert list((folder / "episodes").iterdir()) == []
    assert corrections.node._event.event == EpisodeEvent.DISCARDED
    corrections.started()
    corrections.drive({1: Mode.EXPERT}, ticks=1)
    assert corrections.stop(discard=True).message == "episode 0 discarded: nothing is kept of it"


def test_acts_help_and_events_are_kept_whoever_drives(corrections: Recorder, folder: Path) -> None:
    corrections.started()
    began_ns = corrections.now_ns
    corrections.drive({}, ticks=49)
    corrections.receive("expert/act", OperatorAct(act=Act.UNDO, contract_sha256=corrections.contract.sha256))
    corrections.receive("supervisor/help", HelpRequest())
    corrections.receive("episode", EpisodeEvent())
    corrections.drive({1: Mode.EXPERT, 2: Mode.POLICY}, ticks=100)
    assert corrections.stop().success
    info = read_episode(folder / "episodes/000000")
    assert [info.messages[t] for t in ("expert/act", "supervisor/help", "episode")] == [1, 1, 2]
    assert [act["act"] for act in info.acts] == ["undo"]
    # They were written before what the takeover brought, which is older.
    bag = yaml.safe_load((folder / "episodes/000000" / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert bag["starting_time"]["nanoseconds_since_epoch"] == began_ns + 30 * PERIOD_NS
    assert bag["message_count"] == sum(info.messages.values())


def test_correction_is_on_the_disk_half_a_second_after_it_ended(
    corrections: Recorder, folder: Path, tmp_path: Path
) -> None:
    corrections.started()
    corrections.drive({50: Mode.EXPERT, 53: Mode.POLICY}, ticks=63)
    episode = tmp_path / "copy/episodes/000000"  # as after kill -9
    shutil.copytree(folder / "episodes/000000", episode)
    info = recover_episode(episode).info
    assert corrections.ticks(episode) == list(range(30, 54))
    assert info.keep == "corrections"


def test_diagnostics_show_frames_rates_and_losses(recorder: Recorder) -> None:
    recorder.started()
    recorder.node.verdict()
    rates = {stream.topic: stream.rate_hz for stream in recorder.contract.streams.values()}
    recorder.now_ns += 2_000_000_000
    for topic, rate_hz in rates.items():
        recorder.hear(topic, times=round(2 * rate_hz))
    for _ in range(40):
        recorder.decide()
    level, words, values = recorder.node.verdict()
    assert (level, words, values["lost"]) == (LEVEL_OK, "recording episode 0", 0)
    assert (values["joint_states"], values["joint_states rate_hz"]) == (40, "20.0")
    assert (values["supervisor/decision"], values["supervisor/decision rate_hz"]) == (40, "20.0")
    assert float(str(values["free_gb"])) > 0
    recorder.decide(lost=3)
    level, words, values = recorder.node.verdict()
    assert (level, values["lost"]) == (LEVEL_WARN, 3)
    assert words == "recording episode 0, 3 messages of supervisor/decision were lost"
    recorder.stop()
    recorder.started()
    assert recorder.node.verdict()[2]["lost"] == 0  # of the open episode


def test_overwritten_messages_are_counted_as_lost(recorder: Recorder) -> None:
    """Real messages: a queue that is not emptied in time holds the newest ones."""
    depth = recorder.node.qos.recorded_sensor(20.0).depth
    publisher = recorder.node.create_publisher(message_class("sensor_msgs/msg/JointState"), "joint_states", depth + 5)
    publisher.publish(message_class("sensor_msgs/msg/JointState")())
    recorder.node._drain()
    for _ in range(depth + 5):
        publisher.publish(message_class("sensor_msgs/msg/JointState")())
    recorder.node._drain()
    assert recorder.node._traffic.lost["joint_states"] == 5


def test_diagnostics_of_the_graph_are_recorded(recorder: Recorder, folder: Path) -> None:
    recorder.started()
    recorder.decide()
    recorder.node._publish_diagnostics()
    recorder.node._drain()
    assert recorder.stop().success
    assert read_episode(folder / "episodes/000000").messages["diagnostics"] == 1
    with (folder / "episodes/000000/bag/bag.mcap").open("rb") as file:
        ((schema, channel, _),) = make_reader(file).iter_messages(topics=["/diagnostics"])
    assert (schema.name, channel.topic) == ("diagnostic_msgs/msg/DiagnosticArray", "/diagnostics")


def test_diagnostics_are_not_recorded_in_lockstep(ros_domain: int, folder: Path) -> None:
    recorder = Recorder(ros_domain, folder, lockstep=True)
    assert "diagnostics" not in recorder.node._topics
    assert "/diagnostics" not in {s.topic_name for s in recorder.node.subscriptions}
    recorder.end()


def test_lockstep_episode_of_corrections_ends_with_its_last_decision(ros_domain: int, folder: Path) -> None:
    recorder = Recorder(ros_domain, folder, lockstep=True, simulation_seed=3, keep="corrections")
    recorder.node.start(3)
    recorder.node._on_tick(SimTick(tick=0, start=True, seed=3))
    recorder.decide(Mode.EXPERT)
    recorder.decide(Mode.POLICY)
    recorder.decide(Mode.POLICY)
    recorder.node._on_tick(SimTick(tick=4, done=True, success=True, seed=3))
    assert not (folder / "episodes/000000/episode.json").exists()
    recorder.decide(Mode.POLICY)
    assert read_episode(folder / "episodes/000000").messages["supervisor/decision"] == 2
    recorder.end()


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_folder_that_goes_away_ends_the_episode_with_a_reason_and_keeps_the_others(
    how: str, recorder: Recorder, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder.started()
    recorder.drive({}, ticks=20)
    assert recorder.stop().success
    recorder.started()
    recorder.drive({}, ticks=20)
    if how == "removed":
        shutil.rmtree(folder / "episodes/000001")
    else:
        (folder / "episodes/000001").rename(tmp_path / "elsewhere")
    recorder.drive({}, ticks=10)  # half a second
    level, words, _ = recorder.node.verdict()
    part = folder / "episodes/000001/.bag.part/bag.mcap"
    expected = f"recording of episode 1 stopped, its bag is not whole: No such file or directory ({part})"
    assert (level, words) == (LEVEL_ERROR, expected)
    assert expected in capfd.readouterr().err
    assert recorder.node._event.event == EpisodeEvent.DISCARDED
    assert recorder.stop().message == expected
    assert recorder.ticks(folder / "episodes/000000") == list(range(1, 21))
    recorder.started()
    recorder.drive({}, ticks=5)
    assert recorder.stop().success
    assert recorder.node.verdict()[:2] == (LEVEL_OK, "not recording")


def test_folder_that_goes_away_holds_nobody_up(ros_domain: int, folder: Path) -> None:
    with LockstepGraph(contract_path("peg"), rule="bc", round_index=0, out=folder) as graph:
        graph.run_episode(1)
        decisions: list[Any] = []
        watcher = graph._bridge.create_subscription(GateDecision, "supervisor/decision", decisions.append, 1000)
        graph._aggregator.start(2)
        graph._settle()
        graph._bridge.reset(2)
        while len(decisions) < 20:
            assert graph._poll()
            poll([watcher])
        assert decisions[-1].mode == Mode.EXPERT
        shutil.rmtree(folder / "episodes/000001")
        while not graph._bridge.status.done:
            assert graph._poll()
            poll([watcher])
        verdict = graph._aggregator.verdict()
    assert verdict[0] == LEVEL_ERROR
    assert "recording of episode 1 stopped" in verdict[1]
    ticks = [d.tick for d in decisions]
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))  # no tick was missed
    assert graph._bridge.status.success
    assert (folder / "episodes/000000/episode.json").is_file()


@contextlib.contextmanager
def denied(folder: Path) -> Iterator[None]:
    """Nothing can be written in a folder, also by root."""
    user = os.geteuid()
    folder.chmod(0o500)
    try:
        if user == 0:
            os.seteuid(65534)  # nobody
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


@contextlib.contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """A file has the place of a folder."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.write_text("a file")
    yield
    folder.unlink()
    aside.rename(folder)


@pytest.mark.parametrize(("obstacle", "reason"), [(denied, "Permission denied"), (occupied, "Not a directory")])
def test_folder_that_cannot_be_written_is_said_and_recording_goes_on_after_it(
    obstacle: Any, reason: str, recorder: Recorder, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    recorder.started()
    recorder.decide()
    assert recorder.stop().success
    for topic in recorder.contract.topics:
        recorder.hear(topic)
    recorder.decide()
    with obstacle(folder / "episodes"):
        answer = recorder.start()
        level, words, _ = recorder.node.verdict()
    assert not answer.success
    assert "expected a folder that can be written; " in answer.message
    assert reason in answer.message
    assert (level, words) == (LEVEL_ERROR, answer.message)
    assert answer.message in capfd.readouterr().err
    assert recorder.node._event.event == EpisodeEvent.FINISHED  # nothing began
    assert (folder / "episodes/000000/episode.json").is_file()
    recorder.started()
    recorder.decide()
    assert recorder.stop().success
    assert unfinished_episodes(folder) == []
    assert recorder.node.verdict()[0] == LEVEL_OK


def test_folder_below_a_file_is_refused_at_the_start(ros_domain: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(
        DaggerError, match=r"expected a folder that can be written .* got .*/file/round: Not a directory"
    ):
        Recorder(ros_domain, tmp_path / "file" / "round")


def test_round_of_a_run_brings_its_contract_into_it(ros_domain: int, tmp_path: Path) -> None:
    recorder = Recorder(ros_domain, tmp_path / "run/rounds/001")
    assert not (tmp_path / "run").exists()
    recorder.started()
    assert (tmp_path / "run/contract.yaml").read_bytes() == contract_path("peg").read_bytes()
    recorder.end()


@pytest.mark.parametrize(
    ("task", "number", "message"),
    [
        ("lane", "001", r"contract.yaml: expected contract .* \(peg\), found .* \(lane\)"),
        ("peg", "002", r"expected round 2 for the folder .*rounds/002, got round 1"),
    ],
)
def test_round_of_another_run_is_refused_at_the_start(
    ros_domain: int, tmp_path: Path, task: str, number: str, message: str
) -> None:
    (tmp_path / "contract.yaml").write_bytes(contract_path(task).read_bytes())
    with pytest.raises(DaggerError, match=message):
        Recorder(ros_domain, tmp_path / "rounds" / number)


def press(recorder: Recorder, act: Act, sha256: str | None = None) -> None:
    recorder.receive("expert/act", OperatorAct(act=act, contract_sha256=sha256 or recorder.contract.sha256))


def test_episodes_begin_and_end_at_the_pad(recorder: Recorder, folder: Path) -> None:
    press(recorder, Act.BEGIN)
    level, text, _ = recorder.node.verdict()
    assert level == LEVEL_WARN
    assert "the pad's begin was refused: expected every observation and the decisions to come in" in text
    for topic in recorder.contract.topics:
        recorder.hear(topic)
    recorder.decide()
    press(recorder, Act.BEGIN, "of another contract")
    assert not (folder / "episodes").exists()
    press(recorder, Act.BEGIN)
    assert recorder.node.verdict()[1].startswith("recording episode 0")
    recorder.decide(tick=1)
    press(recorder, Act.BEGIN)  # of no effect while one is recorded
    press(recorder, Act.SUCCESS)
    info = read_episode(folder / "episodes/000000")
    assert (info.success, [act["act"] for act in info.acts]) == (True, ["begin", "success"])
    assert recorder.node.verdict()[:2] == (LEVEL_OK, "not recording")
    for topic in recorder.contract.topics:
        recorder.hear(topic)
    recorder.decide(tick=2)
    press(recorder, Act.BEGIN)
    assert recorder.node.verdict()[1].startswith("recording episode 1")
