"""Runs panels: each rollout in process, on every core or on a Ray cluster, resumed where it was cut short."""

from __future__ import annotations

import functools
import importlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dagger_ros.contract import Contract, DaggerError, Mode, RowLayout, load_contract
from dagger_ros.contract.files import replace_folder, write_file
from dagger_ros.control import ControlTick
from dagger_ros.dataset.acts import corrections
from dagger_ros.evaluation.panel import ROLLOUTS, Panel, PanelResult, RolloutKey, RolloutResult
from dagger_ros.evaluation.trace import Trace
from dagger_ros.policy import Checkpoint, Policy, load_policy
from dagger_ros.sim import MujocoPlant, load_plant, rollout
from dagger_ros.sim.experts import make_labeller
from dagger_ros.sim.worker import start_worker
from dagger_ros.supervisor import Gate, Response, make_rule, response_bits

__all__ = [
    "ENGINES",
    "PanelRunner",
    "Pool",
    "check_result",
    "contract_of",
    "make_pool",
    "policy_of",
    "run_rollout",
    "trace_path",
]

ENGINES = ("processes", "ray")
_PANEL = "panel.json"


def trace_path(folder: Path, key: RolloutKey) -> Path:
    """Where the trace of a rollout lies in the folder of a panel's result."""
    return folder / "traces" / f"{key}.npz"


class PanelRunner:
    """Runs panels in workers that live as long as the runner.

    Args:
        contract_path: The task contract. On a Ray cluster every node must have it, and the policies, at this path.
        workers: Processes; of a Ray cluster, how many rollouts at a time.
        engine: One of `ENGINES`.

    Raises:
        DaggerError: For another engine, or Ray that is not installed.
    """

    def __init__(self, contract_path: Path, *, workers: int, engine: str = "processes") -> None:
        self._contract_path = contract_path.resolve()
        self._contract = load_contract(contract_path)
        self._pool = make_pool(workers, engine)

    def run(
        self, panel: Panel, policy: str | Path, folder: Path, on_rollout: Callable[[], object] = lambda: None
    ) -> PanelResult:
        """Evaluates one policy.

        Args:
            panel: Which rollouts.
            policy: What `policy.load_policy` takes.
            folder: Gets `rollouts.json`, `panel.json` and `traces/`, whole or not at all. What a run that was cut
                short left beside it is gone on with; a result of the same policy and panel is read.
            on_rollout: Called after each rollout.

        Raises:
            DaggerError: If the policy cannot be used, gives NaN, or the panel is not for the contract; the rollouts
                of a policy that gives NaN are left in the folder.
        """
        panel.check(self._contract)
        about, _ = load_policy(policy, self._contract)
        if folder.exists():
            return self._there(panel, about, folder)
        part = folder.with_name(f".{folder.name}.part")
        wanted = about.weights_sha256, panel.sha256, self._contract.sha256
        done = _done_before(part, panel, wanted)
        for _ in done:
            on_rollout()
        text = panel.model_dump_json()
        futures = {
            self._pool.submit(_run_one, self._contract_path, str(policy), wanted[0], text, key): key
            for key in panel.rollouts
            if key not in done
        }
        for future in as_completed(futures):
            result, trace = future.result()
            write_file(trace_path(part, futures[future]), trace)
            done[futures[future]] = result
            on_rollout()
        result = PanelResult(
            panel=panel.name,
            panel_sha256=panel.sha256,
            contract_sha256=self._contract.sha256,
            policy=about.name,
            policy_sha256=about.weights_sha256,
            metric_name=self._contract.task.metric.name,
            rollouts=tuple(done[key] for key in panel.rollouts),
        )
        write_file(part / _PANEL, (json.dumps(panel.model_dump(mode="json"), indent=1) + "\n").encode())
        write_file(part / ROLLOUTS, result.to_json())
        replace_folder(part, folder)
        result.check_finite()
        return result

    def _there(self, panel: Panel, about: Checkpoint, folder: Path) -> PanelResult:
        """What is in a folder already."""
        result = PanelResult.read(folder)
        result.check(panel, self._contract, folder)
        if result.policy_sha256 != about.weights_sha256:
            raise DaggerError(
                f"{folder}: expected the rollouts of {about.name} ({about.weights_sha256[:12]}), found those of "
                f"{result.policy} ({result.policy_sha256[:12]}); take another folder"
            )
        result.check_finite()
        return result

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()

    def __enter__(self) -> PanelRunner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_result(folder: Path, contract: Contract) -> None:
    """Reads the result of a panel, and every trace, and compares them.

    Raises:
        DaggerError: If something is gone, changed, or of another contract.
    """
    result = PanelResult.read(folder)
    path = folder / _PANEL
    try:
        panel = Panel.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DaggerError(f"{path}: expected the panel of {ROLLOUTS}; {error}") from error
    result.check(panel, contract, folder)
    wanted = result.policy_sha256, panel.sha256, contract.sha256
    for said in result.rollouts:
        trace = Trace.read(trace_path(folder, said.key))
        found = trace.policy_sha256, trace.panel_sha256, trace.contract_sha256
        if trace.result != said or found != wanted or len(trace.rows) != said.ticks:
            raise DaggerError(
                f"{trace_path(folder, said.key)}: expected the rollout that {ROLLOUTS} has; it is another"
            )


def run_rollout(
    contract: Contract,
    plant: MujocoPlant,
    policy: tuple[Checkpoint, Policy] | None,
    key: RolloutKey,
    *,
    ticks: int,
    help: str = "none",
) -> tuple[RolloutResult, np.ndarray[Any, Any], np.ndarray[Any, np.dtype[np.float32]]]:
    """One rollout of a policy under the supervisor.

    Args:
        contract: Of the policy and the plant.
        plant: Where.
        policy: What it is, and itself.
        key: Which rollout.
        ticks: Longest.
        help: As of a panel.

    Returns:
        How it ended, (T,) rows, and (T + 1, S) scenes.
    """
    layout = RowLayout(contract)
    # `hg` without an expert: the policy drives, and nobody takes over.
    gate = Gate(contract, make_rule("hg", round_index=1), auto_arm=True, needs_expert=help != "none")
    labeller = make_labeller(help, contract) if help != "none" else None
    control = ControlTick(layout, gate, labeller, policy)
    scenes: list[Any] = []
    rows, status = rollout(
        plant, control, layout, seed=key.seed, ticks=ticks, on_tick=lambda: scenes.append(plant.scene())
    )
    scenes.append(plant.scene())
    clamped = rows["reasons"] & np.uint64(response_bits(Response.LIMIT))
    strange = np.isfinite(rows["observation"]).all(axis=1) & ~np.isfinite(rows["policy_action"]).all(axis=1)
    doubts = rows["doubt"][np.isfinite(rows["doubt"])]
    result = RolloutResult(
        condition=key.condition,
        seed=key.seed,
        success=status.success,
        failure=status.failure or ("" if status.success else "cut_short"),
        metric=status.metric,
        ticks=len(rows),
        driven=float((rows["mode"] == Mode.POLICY).mean()),
        clamped=float((clamped > 0).mean()),
        doubt=float(doubts.mean()) if len(doubts) else None,
        expert_ticks=int((rows["mode"] == Mode.EXPERT).sum()),
        takeovers=len(corrections(rows)),
        not_finite=int(strange.argmax()) if strange.any() else -1,
    )
    return result, rows, np.array(scenes, np.float32)


def _done_before(part: Path, panel: Panel, wanted: tuple[str, str, str]) -> dict[RolloutKey, RolloutResult]:
    """What is there of the same policy, panel and contract; anything else is removed."""
    done = {}
    for key in panel.rollouts:
        path = trace_path(part, key)
        if path.is_file():
            trace = Trace.read(path)
            if (trace.policy_sha256, trace.panel_sha256, trace.contract_sha256) == wanted:
                done[key] = trace.result
    if not done:
        shutil.rmtree(part, ignore_errors=True)
    return done


def _run_one(
    contract_path: Path, policy: str, policy_sha256: str, panel_text: str, key: RolloutKey
) -> tuple[RolloutResult, bytes]:
    contract, panel = contract_of(contract_path), Panel.model_validate_json(panel_text)
    plant = _plant_of(contract_path, panel_text, key.condition)
    plant.time_ns = plant.tick = 0  # or a trace would tell which rollouts came before it in this process
    driver = policy_of(contract_path, policy, policy_sha256)
    result, rows, scene = run_rollout(contract, plant, driver, key, ticks=panel.ticks(contract), help=panel.help)
    return result, Trace(result, policy_sha256, panel.sha256, contract.sha256, rows, scene).to_bytes()


@functools.lru_cache(maxsize=1)
def contract_of(path: Path) -> Contract:
    """Of a worker."""
    return load_contract(path)


@functools.lru_cache(maxsize=32)
def _plant_of(path: Path, panel_text: str, condition: str) -> MujocoPlant:
    perturbation = Panel.model_validate_json(panel_text).perturbation(condition)
    return load_plant(contract_of(path), path, perturbation)


@functools.lru_cache(maxsize=2)
def policy_of(path: Path, policy: str, sha256: str) -> tuple[Checkpoint, Policy]:
    """Of a worker.

    Raises:
        DaggerError: If it cannot be loaded, or has other weights than these.
    """
    about, network = load_policy(policy, contract_of(path))
    if about.weights_sha256 != sha256:
        raise DaggerError(f"{policy}: it was changed while it was evaluated")
    return about, network


class Pool(Protocol):
    """Workers."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Calls a function of a module in one of them."""

    def close(self) -> None:
        """Ends them."""


def make_pool(workers: int, engine: str) -> Pool:
    """Workers that call functions at the same time.

    Args:
        workers: Processes; of a Ray cluster, how many calls at a time.
        engine: One of `ENGINES`.

    Raises:
        DaggerError: For another engine, or Ray that is not installed.
    """
    if engine not in ENGINES:
        raise DaggerError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    return _Processes(workers) if engine == "processes" else _Ray(workers)


class _Processes:
    """On the cores of this machine."""

    def __init__(self, workers: int) -> None:
        # Not forked: a forked child inherits the locks of torch's and DDS's threads, but not the threads.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        return self._pool.submit(function, *arguments)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


class _Ray:
    """On a Ray cluster: the one that RAY_ADDRESS names, or one made here."""

    def __init__(self, workers: int) -> None:
        try:
            ray = importlib.import_module("ray")
        except ImportError as error:
            raise DaggerError(
                "engine: expected Ray for --engine ray, and it is not installed; pip install ray, or leave the option "
                "out to use the cores of this machine"
            ) from error
        self._ray = ray
        if not ray.is_initialized():
            ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else workers, log_to_driver=False)
        self._remotes: dict[Callable[..., Any], Any] = {}

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        remote = self._remotes.setdefault(function, self._ray.remote(function))
        future: Future[Any] = remote.remote(*arguments).future()
        return future

    def close(self) -> None:
        self._ray.shutdown()
