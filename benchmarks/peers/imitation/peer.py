"""Trains with `imitation` on the Gymnasium view of a contract. Runs in the peer's own virtual environment.

    venv/bin/python peer.py JOB.json RESULT.json

`run.py` writes the job and reads the result: the stages of `dagger` and `bc`, or samples per second.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from imitation.algorithms import bc
from imitation.algorithms.dagger import SimpleDAggerTrainer
from imitation.data import rollout, types
from imitation.policies.base import NonTrainablePolicy, NormalizeFeaturesExtractor
from imitation.util import logger
from job import Job, Stage
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from dagger_ros.sim.gym import ContractEnv


def main() -> None:
    """Does one job."""
    job = Job.read(Path(sys.argv[1]))
    logging.disable(logging.INFO)
    # The peer leaves two on this machine, which makes it several times slower.
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    result = {"dagger": _dagger, "bc": _bc, "speed": _speed}[job.kind](job)
    Path(sys.argv[2]).write_text(json.dumps(result))


class _Watch:
    """Time that was spent while it ran."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter() - self._begun[0]
        self.cpu_s += time.process_time() - self._begun[1]


class _Scripted(NonTrainablePolicy):
    """The contract's scripted expert: it sees the true state, so it is asked of the environment."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(observation_space=env.observation_space, action_space=env.action_space)
        self._env = env.unwrapped

    def _choose_action(self, obs: np.ndarray) -> np.ndarray:
        own, space = self._env.action_space, self.action_space
        share = (self._env.expert_action - own.low) / (own.high - own.low)
        return (space.low + share * (space.high - space.low)).astype(space.dtype)


class _WithoutInfo(gymnasium.Wrapper):
    """The peer writes every info to disk as text; nobody reads it here, so it is spared that."""

    def reset(self, **options: Any) -> tuple[Any, dict]:
        return self.env.reset(**options)[0], {}

    def step(self, action: Any) -> tuple:
        return *self.env.step(action)[:4], {}


class _Actions(torch.nn.Module):
    """What a policy does on average, in the contract's units: what `dagger_ros` loads as `torch:FILE`."""

    def __init__(self, policy: ActorCriticPolicy, env: gymnasium.Env) -> None:
        super().__init__()
        self._policy = policy
        own, seen = env.unwrapped.action_space, env.action_space
        scale = (own.high - own.low) / (seen.high - seen.low)
        values = {"scale": scale, "offset": own.low - scale * seen.low, "lower": own.low, "upper": own.high}
        for name, value in values.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        policy = self._policy
        features = policy.mlp_extractor.forward_actor(policy.extract_features(observation))
        return (policy.action_net(features) * self.scale + self.offset).clamp(self.lower, self.upper)


class _Peer:
    """Environment, expert and learner of one job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.env: gymnasium.Env = _WithoutInfo(ContractEnv(job.contract))
        if job.scaled:
            self.env = gymnasium.wrappers.RescaleAction(self.env, -1.0, 1.0)
        self.venv = DummyVecEnv([lambda: self.env])
        self.venv.seed(job.seed)
        self.rng = np.random.default_rng(job.seed)
        self.expert = _Scripted(self.env)
        self.logger = logger.configure(tempfile.mkdtemp(), ["json"])
        policy = None if not job.hidden else _policy(self.env, job.hidden, normalised=job.scaled)
        self.learner = bc.BC(
            observation_space=self.env.observation_space,
            action_space=self.env.action_space,
            rng=self.rng,
            policy=policy,
            batch_size=job.batch,
            custom_logger=self.logger,
        )
        # No rollouts in between: evaluation is outside of what is timed.
        self.training = {"progress_bar": False, "log_rollouts_venv": None} | job.training

    def demonstration(self, seed: int) -> types.TrajectoryWithRew:
        """One episode that the expert drives."""
        observation, _ = self.env.reset(seed=seed)
        observations, actions, rewards, over = [observation], [], [], False
        while not over:
            actions.append(self.expert.predict(observation)[0])
            observation, reward, terminated, truncated, _ = self.env.step(actions[-1])
            over = terminated or truncated
            observations.append(observation)
            rewards.append(reward)
        return types.TrajectoryWithRew(np.array(observations), np.array(actions), None, True, np.array(rewards))

    def stage(self, name: str, labels: int, watch: _Watch) -> dict[str, Any]:
        """Leaves the policy as TorchScript."""
        path = Path(self.job.out) / f"{name}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        policy = self.learner.policy
        example, was_training = torch.zeros(1, *self.env.observation_space.shape), policy.training
        torch.jit.trace(_Actions(policy, self.env).eval(), example).save(str(path))
        policy.train(was_training)
        return asdict(Stage(f"torch:{path}", labels, watch.wall_s, watch.cpu_s))


def _policy(env: gymnasium.Env, hidden: list[int], *, normalised: bool) -> ActorCriticPolicy:
    more = {"features_extractor_class": NormalizeFeaturesExtractor} if normalised else {}
    return ActorCriticPolicy(
        observation_space=env.observation_space,
        action_space=env.action_space,
        lr_schedule=lambda _: 1e-3,
        net_arch=hidden,
        activation_fn=torch.nn.ReLU,
        **more,
    )


def _dagger(job: Job) -> list[dict[str, Any]]:
    peer, watch = _Peer(job), _Watch()
    stages: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        with watch:
            trainer = SimpleDAggerTrainer(
                venv=peer.venv,
                scratch_dir=scratch,
                expert_policy=peer.expert,
                rng=peer.rng,
                expert_trajs=[peer.demonstration(seed) for seed in job.demonstrations],
                bc_trainer=peer.learner,
                custom_logger=peer.logger,
                beta_schedule=(lambda _round: 0.0) if job.policy_drives else None,
            )
            if job.policy_drives:
                trainer.extend_and_update(peer.training)
        while True:
            labels = sum(map(len, trainer._all_demos))
            if trainer.round_num:
                stages.append(peer.stage(f"round_{trainer.round_num - 1:03d}", labels, watch))
            if labels >= job.labels:
                break
            with watch:
                trainer.train(1, bc_train_kwargs=peer.training, **job.rounds)  # so few steps are one round
    return stages


def _bc(job: Job) -> list[dict[str, Any]]:
    peer, watch = _Peer(job), _Watch()
    with watch:
        demonstrations: list[Any] = []
        for seed in job.demonstrations:
            if sum(map(len, demonstrations)) < job.labels:
                demonstrations.append(peer.demonstration(seed))
        frames = rollout.flatten_trajectories(demonstrations)[: job.labels]
        peer.learner.set_demonstrations(frames)
        peer.learner.train(**peer.training)
    return [peer.stage("bc", len(frames), watch)]


def _speed(job: Job) -> float:
    """Samples that BC trains on in a second, on data that is given."""
    with np.load(job.data) as data:
        observations, labels = data["observations"].astype(np.float32), data["labels"].astype(np.float32)
    env = ContractEnv(job.contract)
    learner = bc.BC(
        observation_space=env.observation_space,
        action_space=env.action_space,
        rng=np.random.default_rng(job.seed),
        policy=_policy(env, job.hidden, normalised=False),
        batch_size=job.batch,
        custom_logger=logger.configure(tempfile.mkdtemp(), ["json"]),
    )
    count = len(observations)
    learner.set_demonstrations(
        types.Transitions(
            observations, labels, np.array([{}] * count), observations.copy(), np.zeros(count, dtype=bool)
        )
    )
    learner.train(n_batches=max(job.steps // 10, 1), progress_bar=False)  # warm up
    started = time.perf_counter()
    learner.train(n_batches=job.steps, progress_bar=False)
    return job.steps * job.batch / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
