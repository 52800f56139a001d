"""Chunks of actions at run time: which action is proposed, and that graph, panel and replay remember the same."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import contract_path
from dagger_ros.contract import NEVER_NS, Contract, DaggerError, RowLayout, load_contract
from dagger_ros.policy import (
    Checkpoint,
    ChunkSettings,
    MlpEnsemble,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from dagger_ros.policy.chunks import ChunkMemory
from policies import plain, random_tensors

PERIOD_NS = 50_000_000  # of the peg


def memory_of(contract: Contract, horizon: int = 4, use: str = "ensembled", decay: float = 0.5) -> ChunkMemory:
    return ChunkMemory(ChunkSettings(horizon, use, decay), contract, 3)


def chunk(number: float, horizon: int = 4) -> Any:
    """Its k-th action is (number + k / 10) for each dimension."""
    return np.repeat(number + np.arange(horizon)[:, None] / 10, 3, axis=1)


def said(memory: ChunkMemory, ticks: list[float], chunks: list[Any] | None = None) -> list[float]:
    """What comes of chunk i at the time of tick `ticks[i]`, in its first dimension."""
    out, result = np.zeros(3), []
    for i, tick in enumerate(ticks):
        memory.propose(chunks[i] if chunks else chunk(i), round(1e9 + tick * PERIOD_NS), out)
        result.append(float(out[0]))
    return result


def test_ensembled_action_is_the_mean_of_all_chunks_that_reach_to_the_tick_the_oldest_weighing_most(
    peg: Contract,
) -> None:
    found = said(memory_of(peg), [0, 1, 2, 3, 4, 5])
    for tick, value in enumerate(found):
        made = range(max(0, tick - 3), tick + 1)
        weights = np.exp(-0.5 * np.arange(len(made)))
        assert value == pytest.approx(np.average([i + (tick - i) / 10 for i in made], weights=weights))


def test_plain_chunk_is_followed_to_its_end(peg: Contract) -> None:
    found = said(memory_of(peg, use="plain"), [0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert found == pytest.approx([0.0, 0.1, 0.2, 0.3, 4.0, 4.1, 4.2, 4.3, 8.0])


@pytest.mark.parametrize("use", ["ensembled", "plain"])
def test_chunks_are_forgotten_over_a_missed_tick_and_not_for_a_late_one(peg: Contract, use: str) -> None:
    assert said(memory_of(peg, use=use), [0, 1, 3])[2] == 2.0
    late = said(memory_of(peg, use=use), [0, 1.3, 2, 3.2])
    assert late == said(memory_of(peg, use=use), [0, 1, 2, 3])


@pytest.mark.parametrize("use", ["ensembled", "plain"])
def test_what_was_before_a_stamp_that_goes_back_or_an_episode_is_forgotten(peg: Contract, use: str) -> None:
    assert said(memory_of(peg, use=use), [5, 6, 3])[2] == 2.0
    memory = memory_of(peg, use=use)
    said(memory, [0, 1])
    memory.clear()
    assert said(memory, [2, 3]) == said(memory_of(peg, use=use), [2, 3])


@pytest.mark.parametrize("use", ["ensembled", "plain"])
def test_observation_that_is_shown_twice_gives_the_same_action_twice(peg: Contract, use: str) -> None:
    chunks = [chunk(i) for i in (0, 1, 1, 2, 3, 4, 5)]
    found = said(memory_of(peg, use=use), [0, 1, 1, 2, 3, 4, 5], chunks)
    once = said(memory_of(peg, use=use), [0, 1, 2, 3, 4, 5])
    assert found == [*once[:2], *once[1:]]


@pytest.mark.parametrize("use", ["ensembled", "plain"])
def test_chunk_that_is_not_finite_is_passed_on_and_not_remembered(peg: Contract, use: str) -> None:
    bad = chunk(1)
    bad[3, 0] = np.inf
    memory, out = memory_of(peg, use=use), np.zeros(3)
    memory.propose(np.full((4, 3), np.nan), 1_000_000_000, out)
    assert np.isnan(out).all()
    assert said(memory, [0, 1, 2], [chunk(0), bad, chunk(2)])[2] == 2.0


def test_without_an_observation_nothing_is_remembered(peg: Contract) -> None:
    memory, out = memory_of(peg), np.zeros(3)
    for number in (1, 2):
        memory.propose(chunk(number), NEVER_NS, out)
        assert out[0] == number
    assert said(memory, [0])[0] == 0.0


def test_observations_that_come_faster_than_ticks_leave_the_newest_chunks(peg: Contract) -> None:
    ticks = [i / 10 for i in range(40)]
    found = said(memory_of(peg, decay=0.0), ticks)
    newest = range(36, 40)
    steps = [round(3.9 - i / 10) for i in newest]
    assert found[-1] == pytest.approx(np.mean([i + k / 10 for i, k in zip(newest, steps, strict=True)]))


def test_observations_slower_than_ticks_are_no_missed_ticks(peg: Contract) -> None:
    content = peg.model_dump(mode="json", by_alias=True)
    for stream in content["streams"].values():
        stream["rate_hz"] = 10.0
    slow = Contract.model_validate(content)
    assert said(memory_of(slow, use="plain"), [0, 2, 4, 6]) == pytest.approx([0.0, 0.2, 2.0, 2.2])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"horizon": 0}, "horizon: expected a whole number from 1 to 16, got 0"),
        ({"horizon": 17}, "horizon: expected a whole number from 1 to 16, got 17"),
        ({"horizon": 2.0}, "horizon: expected a whole number from 1 to 16, got 2.0"),
        ({"use": "first"}, "chunk use: expected ensembled or plain, got 'first'"),
        ({"decay": -0.1}, "chunk decay: expected a number >= 0, got -0.1"),
        ({"decay": np.nan}, "chunk decay: expected a number >= 0, got nan"),
    ],
)
def test_settings_of_chunks_that_cannot_be_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(DaggerError, match=words):
        ChunkSettings(**wrong)


def chunked_tensors(contract: Contract, horizon: int) -> dict[str, Any]:
    """Random weights, and the first action of the chunk is that of `random_tensors`."""
    tensors = random_tensors(contract)
    rng, size = np.random.default_rng(1), len(tensors["output_mean"])
    for name in ("layer2.weight", "layer2.bias"):
        first = tensors[name]
        more = rng.normal(size=(*first.shape[:2], size * (horizon - 1))).astype(np.float32) / 4
        tensors[name] = np.concatenate([first, more], axis=2)
    return tensors


def chunked_policy(task: str, folder: Path, use: str, horizon: int = 4, said_horizon: int | None = None) -> Path:
    contract = load_contract(contract_path(task))
    tensors = chunked_tensors(contract, horizon)
    half = [(d.upper - d.lower) / 2 for d in contract.action.dimensions_]
    tensors |= {"output_mean": np.zeros(len(half), np.float32), "output_scale": np.array(half, np.float32)}
    about = Checkpoint(
        name=folder.name,
        round=0,
        contract_sha256=contract.sha256,
        seed=0,
        columns=RowLayout(contract).columns(),
        actions=contract.action.dimensions,
        trained_on=(),
        training={},
        chunks=asdict(ChunkSettings(said_horizon or horizon, use, 0.1)),
    )
    save_checkpoint(folder, about, tensors)
    return folder


def test_doubt_is_that_of_the_first_action_of_the_newest_chunk(peg: Contract) -> None:
    tensors = chunked_tensors(peg, 5)
    network, out = MlpEnsemble(tensors, memory_of(peg, horizon=5)), np.zeros(3)
    single = MlpEnsemble(random_tensors(peg))
    for tick in range(4):
        observation = np.random.default_rng(tick).normal(size=24)
        scores = network.act(observation, out, tick * PERIOD_NS)
        first = np.zeros(3)
        assert scores.doubt == pytest.approx(single.act(observation, first, NEVER_NS).doubt, abs=1e-6)
        np.testing.assert_allclose(first, plain(random_tensors(peg), observation).mean(axis=0), atol=1e-5)
        # Without a memory it is also what is proposed.
        forgetful = np.zeros(3)
        MlpEnsemble(tensors).act(observation, forgetful, tick * PERIOD_NS)
        np.testing.assert_allclose(forgetful, first, atol=1e-5)
        assert tick == 0 or np.abs(out - first).max() > 1e-3


def test_policy_that_says_another_horizon_than_its_weights_have_is_refused(peg: Contract, tmp_path: Path) -> None:
    folder = chunked_policy("peg", tmp_path / "pi", "plain", horizon=4, said_horizon=5)
    with pytest.raises(DaggerError, match=r"expected chunks of 5 actions, as policy.json says; the weights give 4"):
        load_checkpoint(folder, peg)
    text = (folder / "policy.json").read_text()
    (folder / "policy.json").write_text(text.replace('"decay"', '"decline"'))
    with pytest.raises(DaggerError, match="chunks: expected horizon, use and decay"):
        load_checkpoint(folder, peg)
    about, network = load_checkpoint(chunked_policy("peg", tmp_path / "good", "plain"), peg)
    assert (network.horizon, network.action_size, about.chunks["use"]) == (4, 3, "plain")


@pytest.mark.ros
@pytest.mark.mujoco
@pytest.mark.usefixtures("ros_domain")
@pytest.mark.parametrize("use", ["ensembled", "plain"])
@pytest.mark.parametrize("perturbation", [{}, {"observation_delay_s": 0.1, "observation_drop": 0.2}])
def test_graph_panel_and_replay_remember_the_same(
    use: str, perturbation: dict[str, float], peg: Contract, tmp_path: Path
) -> None:
    pytest.importorskip("rclpy")
    pytest.importorskip("mujoco")
    from dagger_ros.control import ControlTick, propose_again
    from dagger_ros.dataset import read_rows
    from dagger_ros.nodes.lockstep import LockstepGraph
    from dagger_ros.sim import Perturbation, load_plant, rollout
    from dagger_ros.sim.experts import labeller_of_rule, make_labeller
    from dagger_ros.supervisor import Gate, make_rule

    path, layout, seeds = contract_path("peg"), RowLayout(peg), (21, 22)
    folder = chunked_policy("peg", tmp_path / "pi_000", use)
    with LockstepGraph(
        path, rule="hg", round_index=1, policy=folder, out=tmp_path / "round", perturbation=perturbation
    ) as graph:
        for seed in seeds:
            graph.run_episode(seed)
    policy, fresh = load_checkpoint(folder, peg), load_checkpoint(folder, peg)
    gate = Gate(peg, make_rule("hg", round_index=1), auto_arm=True)
    control = ControlTick(layout, gate, make_labeller(labeller_of_rule("hg", 1), peg), policy)
    plant = load_plant(peg, path, Perturbation(**perturbation))
    for i, seed in enumerate(seeds):
        recorded = read_rows(tmp_path / "round" / "episodes" / f"{i:06d}" / "bag", layout)
        rows, _ = rollout(plant, control, layout, seed=seed, ticks=peg.horizon_ticks, round_index=1, episode=i)
        for name in rows.dtype.names or ():
            assert recorded[name].tobytes() == rows[name].tobytes(), f"episode {i}: {name} differs"
        assert propose_again(recorded, layout, fresh).tobytes() == recorded.tobytes()
    # The memory counts: without it other actions are proposed.
    forgetful = MlpEnsemble(read_checkpoint(folder, peg)[1])
    assert propose_again(recorded, layout, (policy[0], forgetful)).tobytes() != recorded.tobytes()


@pytest.mark.ros
def test_node_forgets_where_an_episode_begins(ros_domain: int, tmp_path: Path) -> None:
    rclpy = pytest.importorskip("rclpy")
    from dagger_ros.msg import EpisodeEvent
    from dagger_ros.nodes.policy import PolicyNode

    folder = chunked_policy("peg", tmp_path / "pi_000", "ensembled")
    context = rclpy.context.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = PolicyNode({"contract": str(contract_path("peg")), "policy": str(folder)}, context)
    try:
        starts: list[bool] = []
        node._network.start_episode = lambda: starts.append(True)  # type: ignore[method-assign]
        (topic,) = (s for s in node.subscriptions if s.topic_name.endswith("episode"))
        for episode, event in ((0, EpisodeEvent.STARTED), (0, EpisodeEvent.STARTED), (0, EpisodeEvent.FINISHED)):
            topic.callback(EpisodeEvent(event=event, episode=episode, seed=7))
        assert starts == [True]
        topic.callback(EpisodeEvent(event=EpisodeEvent.STARTED, episode=1, seed=7))
        assert starts == [True, True]
    finally:
        node.destroy_node()
        context.try_shutdown()
