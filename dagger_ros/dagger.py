"""The loop: demonstrate, train, roll out under the supervisor, label, aggregate, train again, evaluate, repeat.

runs/<name>/
contract.yaml  config.yaml     what was asked for
rounds/000/                    000: demonstrations; see `dataset.rounds`
policies/pi_000/               trained on rounds 000 to 000; see `policy.checkpoint`
panels/pi_000/                 its held-out rollouts; see `evaluation.panel`
result.json  report/index.html
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from dagger_ros.contract import Contract, DaggerError, Goal, Mode, RowLayout, load_contract
from dagger_ros.contract.files import write_file
from dagger_ros.dataset import (
    Round,
    TrainingEpisode,
    check_round,
    finish_round,
    labelled_frames,
    load_round,
    manifest_sha256,
    round_folder,
    training_episodes,
    verify_round,
)
from dagger_ros.evaluation import Panel, PanelResult, PanelRunner, write_report
from dagger_ros.learning import Experience, TrainingSettings, fit_limits, human_doubt_limit, train
from dagger_ros.policy import Checkpoint, load_checkpoint, save_checkpoint
from dagger_ros.sim import TaskStatus, load_plant
from dagger_ros.supervisor import ROBOT_GATED, RuleOptions, make_rule

__all__ = ["Collect", "Progress", "RoundResult", "RunConfig", "run", "verify"]

_SCHEMA = "dagger_ros.result/1"
# Seeds of one run's episodes; those of panels begin at 10^9 (see `evaluation.Panel`).
_SEEDS_PER_RUN, _SEEDS_PER_ROUND = 100_000, 1_000
_RULE_OF_OPTION = {"beta": "dagger", "budget": "thrifty", "expert_noise": "lazy"}
# Of rule lazy in simulation, in half bound ranges; tuned on seed 0 of `peg` and `lane`, where 0.3 keeps a peg from its
# hole and 0 leaves the policy without what it needs to recover.
_NOISE = 0.1


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do. What is None comes from the contract's `collection`.

    Args:
        rule: One of `supervisor.RULES`.
        rounds: Rounds after the demonstrations.
        seed: Of everything random: episodes, training.
        beta: Of rule `dagger`, see `RuleOptions`; None, as for the next two: the default.
        budget: Of rule `thrifty`.
        expert_noise: Of rule `lazy`.
        demonstrations: Episodes of round 0.
        episodes: Episodes of each further round.
        max_labels: Stop after the round in which so many labels are reached; None: no such limit.
        training: How each policy is trained.
    """

    rule: str
    rounds: int
    seed: int
    beta: str | None = None
    budget: float | None = None
    expert_noise: float | None = None
    demonstrations: int | None = None
    episodes: int | None = None
    max_labels: int | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        make_rule(self.rule, round_index=0, options=self.options)
        for name, rule in _RULE_OF_OPTION.items():
            value = getattr(self, name)
            if value is not None and self.rule != rule:
                raise DaggerError(f"{name}: expected only with rule {rule}, got {value} with rule {self.rule}")
        for name in ("rounds", "demonstrations", "episodes", "max_labels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DaggerError(f"{name}: expected a whole number >= 1, got {value}")
        if not 0 <= self.seed < 9_999:
            raise DaggerError(f"seed: expected a whole number from 0 to 9998, got {self.seed}")
        if self.rounds * _SEEDS_PER_ROUND >= _SEEDS_PER_RUN:
            raise DaggerError(f"rounds: expected less than {_SEEDS_PER_RUN // _SEEDS_PER_ROUND}, got {self.rounds}")
        for name in ("demonstrations", "episodes"):
            if (getattr(self, name) or 0) > _SEEDS_PER_ROUND:
                raise DaggerError(f"{name}: expected at most {_SEEDS_PER_ROUND} a round, got {getattr(self, name)}")

    @property
    def options(self) -> RuleOptions:
        """Of the rule."""
        given = {name: value for name in _RULE_OF_OPTION if (value := getattr(self, name)) is not None}
        return RuleOptions(**{"expert_noise": _NOISE} | given)


class Collect(Protocol):
    """Records the episodes of one round into a folder: `nodes.lockstep.collect_round`."""

    def __call__(
        self,
        contract_path: Path,
        folder: Path,
        *,
        rule: str,
        round_index: int,
        options: RuleOptions,
        policy: Path | None,
        seeds: Sequence[int],
        on_episode: Callable[[TaskStatus], object],
    ) -> int:
        """Gives the number of episodes that were recorded."""


class Progress(Protocol):
    """Where the loop says what it does; the command line draws bars."""

    def stage(self, name: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """A stage of a round with `total` steps; gives what to call with the number of steps done."""

    def round_done(self, result: RoundResult) -> None:
        """A round is finished."""


@dataclass(frozen=True)
class RoundResult:
    """One line of the result: what a round brought and how the policy after it does."""

    round: int
    policy: str
    labels_new: int
    labels_total: int
    takeovers: int
    context_switches: int
    help_requests: int
    expert_ticks: int
    policy_ticks: int
    intervention_rate: float
    panel: dict[str, Any]


def run(
    config: RunConfig,
    contract_path: Path,
    out: Path,
    panel: Panel,
    *,
    collect: Collect,
    progress: Progress,
    resume: bool,
    workers: int,
) -> dict[str, Any]:
    """Runs DAgger to its end.

    Args:
        config: What to do.
        contract_path: The task contract.
        out: Folder of the run.
        panel: Held-out rollouts that every policy is judged on.
        collect: How rounds are recorded.
        progress: Told what happens.
        resume: Go on with the run that is in `out`, from its last finished round.
        workers: Processes for the panel.

    Returns:
        What stands in result.json.

    Raises:
        DaggerError: If `out` holds another run, or is damaged; nothing in it was changed then.
    """
    contract = load_contract(contract_path)
    # What cannot be simulated is refused before the folder is made.
    load_plant(contract, contract_path)
    if contract.operator.source != "scripted":
        raise DaggerError(
            f"{contract_path}: operator.source: expected scripted, since here a script labels; "
            f"found {contract.operator.source}"
        )
    _prepare(out, contract_path, contract, config, panel, resume=resume)
    results: list[RoundResult] = []
    stop = f"{config.rounds} of {config.rounds} rounds done"
    with PanelRunner(contract_path, panel, workers=workers) as runner:
        for k in range(config.rounds + 1):
            new = not _panel_folder(out, k).exists()
            round_ = _collect_round(out, contract_path, contract, config, k, collect, progress)
            policy = _train_policy(out, contract, config, k, progress)
            panel_result = _evaluate(out, policy, runner, k, progress)
            labels = round_.labels + (results[-1].labels_total if results else 0)
            results.append(
                RoundResult(
                    round=k,
                    policy=policy.name,
                    labels_new=round_.labels,
                    labels_total=labels,
                    takeovers=round_.takeovers,
                    context_switches=round_.context_switches,
                    help_requests=round_.help_requests,
                    expert_ticks=round_.expert_ticks,
                    policy_ticks=round_.policy_ticks,
                    intervention_rate=round_.intervention_rate,
                    panel=panel_result.summary(),
                )
            )
            progress.round_done(results[-1])
            if config.max_labels is not None and labels >= config.max_labels:
                stop = f"{labels} labels, at least the {config.max_labels} asked for"
                break
            if new:
                _write_result(out, contract, config, results, "not finished")
    result = _write_result(out, contract, config, results, stop)
    write_report(out, contract, result)
    return result


def _collect_round(
    out: Path, contract_path: Path, contract: Contract, config: RunConfig, k: int, collect: Collect, progress: Progress
) -> Round:
    folder = round_folder(out, k)
    if folder.exists():
        return load_round(folder, contract)
    part = folder.with_name(f".{folder.name}.part")
    _keep_interrupted(part)
    collection = contract.collection
    count = (config.demonstrations or collection.demonstrations) if k == 0 else config.episodes or collection.episodes
    first = _SEEDS_PER_RUN * (config.seed + 1) + _SEEDS_PER_ROUND * k
    with progress.stage("demonstrations" if k == 0 else f"round {k}: rollouts", count) as advance:
        collect(
            contract_path,
            part,
            rule=config.rule,
            round_index=k,
            options=config.options,
            policy=None if k == 0 else _policy_folder(out, k - 1),
            seeds=range(first, first + count),
            on_episode=lambda _status: advance(1),
        )
    round_ = finish_round(part, contract)
    if len(round_.episodes) != count:
        raise DaggerError(f"{part}: expected {count} recorded episodes, found {len(round_.episodes)}")
    part.replace(folder)
    return round_


def _train_policy(out: Path, contract: Contract, config: RunConfig, k: int, progress: Progress) -> Path:
    folder = _policy_folder(out, k)
    if folder.exists():
        return folder
    rounds = [round_folder(out, i) for i in range(k + 1)]
    episodes = training_episodes(rounds, contract)
    observations, labels = labelled_frames(episodes)
    with progress.stage(f"round {k}: training on {len(labels)} labels", config.training.steps) as advance:
        trained = train(contract, observations, labels, config.training, seed=config.seed, progress=advance)
    tensors: dict[str, Any] = trained.tensors
    limits: dict[str, Any] = {}
    if config.rule in ROBOT_GATED:
        more, limits = fit_limits(
            config.rule,
            contract,
            trained,
            observations,
            labels,
            [_experience(e) for e in episodes],
            budget=config.options.budget,
            seed=config.seed,
        )
        tensors = tensors | more
    elif config.rule == "hg":
        doubts = [d for f in rounds for e in load_round(f, contract).episodes for d in e.takeover_doubts]
        limits = human_doubt_limit(doubts)
    about = Checkpoint(
        name=folder.name,
        round=k,
        contract_sha256=contract.sha256,
        seed=config.seed,
        columns=RowLayout(contract).columns(),
        actions=contract.action.dimensions,
        trained_on=tuple(_trained_on(folder, contract) for folder in rounds),
        training=asdict(config.training) | {"loss": trained.loss},
        limits=limits,
    )
    save_checkpoint(folder, about, tensors)
    return folder


def _experience(episode: TrainingEpisode) -> Experience:
    rows = episode.rows
    driven = rows[
        ((rows["mode"] == Mode.POLICY) | (rows["mode"] == Mode.EXPERT)) & np.isfinite(rows["executed_action"]).all(1)
    ]
    # The tick of an answer is one at which the policy asked.
    by_policy = (driven["mode"] == Mode.POLICY) | driven["help"]
    return Experience(driven["observation"], driven["executed_action"], by_policy, episode.success)


def _trained_on(folder: Path, contract: Contract) -> dict[str, Any]:
    round_ = load_round(folder, contract)
    return {
        "round": round_.round,
        "manifest_sha256": manifest_sha256(folder),
        "episodes": len(round_.episodes),
        "labels": round_.labels,
    }


def _evaluate(out: Path, policy: Path, runner: PanelRunner, k: int, progress: Progress) -> PanelResult:
    folder = _panel_folder(out, k)
    if folder.exists():
        return PanelResult.read(folder)
    with progress.stage(f"round {k}: panel", runner.panel.count) as advance:
        result = runner.run(policy, lambda: advance(1))
    result.write(folder)
    return result


def _policy_folder(out: Path, k: int) -> Path:
    return out / "policies" / f"pi_{k:03d}"


def _panel_folder(out: Path, k: int) -> Path:
    return out / "panels" / f"pi_{k:03d}"


def _write_result(
    out: Path, contract: Contract, config: RunConfig, rounds: Sequence[RoundResult], stop: str
) -> dict[str, Any]:
    best = _recommended(contract, rounds)
    result = {
        "schema": _SCHEMA,
        "task": contract.name,
        "rule": config.rule,
        "seed": config.seed,
        "contract_sha256": contract.sha256,
        "rounds": [asdict(r) for r in rounds],
        "recommended": {"round": best.round, "policy": best.policy},
        "stop": {"reason": stop},
    }
    write_file(out / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def _recommended(contract: Contract, rounds: Sequence[RoundResult]) -> RoundResult:
    """The best on the panel by the contract's metric; of equals the one with the fewest labels."""
    sign = -1 if contract.task.metric.goal is Goal.MAXIMIZE else 1
    return min(rounds, key=lambda r: (sign * r.panel["metric"]["mean"], -r.panel["success_rate"], r.round))


def _prepare(
    out: Path, contract_path: Path, contract: Contract, config: RunConfig, panel: Panel, *, resume: bool
) -> None:
    """Checks the folder, or makes it."""
    wanted = asdict(config) | {
        "options": asdict(config.options),
        "contract_sha256": contract.sha256,
        "panel_sha256": panel.sha256,
    }
    del wanted["rounds"]  # a finished run may be given more of them
    text = yaml.safe_dump(json.loads(json.dumps(wanted)), sort_keys=False)  # through JSON: lists for tuples
    path = out / "config.yaml"
    if out.exists() and not out.is_dir():
        raise DaggerError(f"{out}: expected a folder that is new or empty, or that of a run to resume; it is a file")
    if not out.exists() or not any(out.iterdir()):
        if resume:
            raise DaggerError(f"{out}: expected the folder of a run to resume; there is none")
        write_file(out / "contract.yaml", contract_path.read_bytes())
        write_file(path, text.encode())
        return
    if not resume:
        raise DaggerError(f"{out}: expected a folder that is new or empty; give another --out, or --resume to go on")
    try:
        there = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise DaggerError(f"{path}: expected the settings of the run to resume; {error}") from error
    wanted = yaml.safe_load(text)
    different = sorted(key for key in wanted.keys() | there.keys() if wanted.get(key) != there.get(key))
    if different:
        lines = [f"  {key}: the run has {there.get(key)}, you asked for {wanted.get(key)}" for key in different]
        raise DaggerError("\n".join([f"{out}: this is another run; it cannot be resumed with", *lines]))
    finished = sum(p.name.isdigit() for p in (out / "rounds").glob("*")) - 1
    if finished > config.rounds:
        raise DaggerError(
            f"{out}: expected at least the {finished} rounds that the run has, got rounds {config.rounds}"
        )
    # Everything that will be built on is read once before anything is written.
    for k in range(config.rounds + 1):
        if round_folder(out, k).exists():
            check_round(round_folder(out, k), contract)
        if _policy_folder(out, k).exists():
            _check_policy(out, k, contract)
        if _panel_folder(out, k).exists():
            _check_panel(out, k, panel)


def verify(out: Path) -> Iterator[tuple[Path, str]]:
    """Reads again what a run left: bags, what is counted in them, weights, what they were trained on, and rollouts.

    Args:
        out: Folder of the run.

    Returns:
        Each part, and what is wrong with it; empty: nothing.

    Raises:
        DaggerError: If there is no run.
    """
    if not round_folder(out, 0).exists():
        raise DaggerError(f"{out}: expected the folder of a run, with rounds/000; there is none")
    contract = load_contract(out / "contract.yaml")
    checks: list[tuple[Path, Callable[[], object]]] = []
    for k in itertools.count():
        parts: list[tuple[Path, Callable[[], object]]] = [
            (round_folder(out, k), partial(_verify_round, out, k, contract)),
            (_policy_folder(out, k), partial(_check_policy, out, k, contract)),
            (_panel_folder(out, k), partial(PanelResult.read, _panel_folder(out, k))),
        ]
        there = [part for part in parts if part[0].exists()]
        if not there:
            break
        checks += there
    dataset = out / "dataset"
    if dataset.exists():
        from dagger_ros.dataset.export import verify_lerobot  # its libraries are of no use to a run

        checks.append((dataset, partial(verify_lerobot, out, out / "contract.yaml", dataset)))
    for path, check in checks:
        try:
            check()
        except DaggerError as error:
            yield path, str(error)
        else:
            yield path, ""


def _verify_round(out: Path, k: int, contract: Contract) -> None:
    """Counts a round anew, and compares the policies that drove in it with those that are there."""
    folder = round_folder(out, k)
    # An episode of each policy that drove.
    drove = {driver: e.episode for e in verify_round(folder, contract).episodes for driver in e.policies.items()}
    for (name, sha256), episode in drove.items():
        about, _ = load_checkpoint(out / "policies" / name, contract)
        if about.weights_sha256 != sha256:
            raise DaggerError(
                f"{folder}: episode {episode} was driven by {name} with weights {sha256[:12]}; those of that "
                f"name in {out / 'policies'} are {about.weights_sha256[:12]}"
            )


def _check_policy(out: Path, k: int, contract: Contract) -> None:
    """Reads a policy, and compares the rounds that it was trained on with those that are there."""
    about, _ = load_checkpoint(_policy_folder(out, k), contract)
    for source in about.trained_on:
        folder = round_folder(out, int(source["round"]))
        if manifest_sha256(folder) != source["manifest_sha256"]:
            raise DaggerError(f"{folder}: expected the round that {about.name} was trained on; it is gone or changed")


def _check_panel(out: Path, k: int, panel: Panel) -> None:
    result = PanelResult.read(_panel_folder(out, k))
    if result.panel_sha256 != panel.sha256 or [r.seed for r in result.rollouts] != list(panel.seeds):
        raise DaggerError(f"{_panel_folder(out, k)}: expected the {panel.count} rollouts of panel {panel.name}")


def _keep_interrupted(part: Path) -> None:
    """Moves what an interrupted round left out of the way: what a robot did is never deleted."""
    if part.exists():
        part.replace(next(name for name in _free_names(part) if not name.exists()))


def _free_names(part: Path) -> Iterator[Path]:
    stem = part.name.strip(".").removesuffix(".part")
    return (part.with_name(f"{stem}.interrupted.{i}") for i in range(1_000_000))
