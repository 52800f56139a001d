"""The aggregator beside a robot whose streams, disk and earlier episodes are not as they should be."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.serialization import serialize_message

from conftest import contract_path
from dagger_ros.dataset import BagWriter
from dagger_ros.msg import EpisodeEvent, GateDecision
from dagger_ros.nodes.aggregator import AggregatorNode
from dagger_ros.nodes.base import LEVEL_ERROR, LEVEL_OK, LEVEL_WARN, message_class
from dagger_ros.srv import StartEpisode, StopEpisode


class Recorder:
    """An aggregator whose messages and clock are in the hands of the test."""

    def __init__(self, domain: int, folder: Path) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.now_ns = 1_000_000_000
        self.node = AggregatorNode({"contract": str(contract_path("peg")), "out": str(folder)}, self.context)
        self.node.monotonic_ns = lambda: self.now_ns  # type: ignore[method-assign]
        self.contract = self.node.contract

    def hear(self, topic: str, *, times: int = 1) -> None:
        types = {stream.topic: stream.type for stream in self.contract.streams.values()}
        for _ in range(times):
            self.node._record(topic, serialize_message(message_class(types[topic])()))

    def decide(self) -> None:
        self.node._record("supervisor/decision", serialize_message(GateDecision()))

    def start(self) -> Any:
        return self.node._on_start(StartEpisode.Request(seed=-1), StartEpisode.Response())

    def stop(self) -> Any:
        return self.node._on_stop(StopEpisode.Request(success=True, metric=1.0), StopEpisode.Response())

    def started(self) -> None:
        for topic in self.contract.topics:
            self.hear(topic)
        self.decide()
        assert self.start().success


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "round"


@pytest.fixture
def recorder(ros_domain: int, folder: Path) -> Iterator[Recorder]:
    result = Recorder(ros_domain, folder)
    yield result
    result.node.destroy_node()
    result.context.try_shutdown()


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
    recorder.node.destroy_node()
    recorder.context.try_shutdown()
    assert f"1 episodes in {folder} were not finished; `dagger-ros recover {folder}`" in capfd.readouterr().err
