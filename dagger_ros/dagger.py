"""The loop: demonstrate, train, roll out under the supervisor, label, aggregate, train again, evaluate, repeat.

runs/<name>/
contract.yaml  config.yaml     what was asked for
rounds/000/                    000: demonstrations; see `dataset.rounds`
policies/pi_000/               trained on rounds 000 to 000; see `policy.checkpoint`
panels/pi_000/nominal/         its held-out rollouts, one folder for each panel; see `evaluation.runner`
result.json  report/index.html
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
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
)
from dagger_ros.evaluation import (
    FEWEST_PAIRS,
    RESULT_SCHEMA,
    Panel,
    PanelResult,
    PanelRunner,
    Stage,
    Trace,
    against,
    best_of,
    covariate_shift,
    plateau,
    trace_path,
    trend,
    write_report,
)
from dagger_ros.learning import Experience, TrainingSettings, fit_limits, human_doubt_limit, origins_of, train
from dagger_ros.policy import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from dagger_ros.sim import TaskStatus, load_plant
from dagger_ros.supervisor import ROBOT_GATED, RuleOptions, make_rule

__all__ = [
    "Collect",
    "Progress",
    "RoundResult",
    "RunConfig",
    "check_policy",
    "panel_folder",
    "policy_folder",
    "run",
    "train_policy",
]

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
        start_from: Run whose round 0 is taken as it is: bags that were imported, or recorded on a robot; None: round 0
            is demonstrated anew.
        episodes: Episodes of each further round.
        max_labels: Learn from the first so many labels, in the order in which they were given, and stop when there
            are as many: equal labels for methods that are compared. None: no such limit.
        patience: Stop when so many rounds in a row brought no credible improvement; 0: only after `rounds`.
        training: How each policy is trained.
    """

    rule: str
    rounds: int
    seed: int
    beta: str | None = None
    budget: float | None = None
    expert_noise: float | None = None
    demonstrations: int | None = None
    start_from: Path | None = None
    episodes: int | None = None
    max_labels: int | None = None
    patience: int = 2
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
        if self.start_from is not None and self.demonstrations is not None:
            raise DaggerError(
                "start_from: expected no number of demonstrations with it, since those of that run are taken; "
                f"got {self.demonstrations}"
            )
        if self.patience < 0:
            raise DaggerError(f"patience: expected a whole number >= 0, got {self.patience}")
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
    """One line of the result: what a round brought and how the policy after it does.

    Args:
        round: Its number.
        policy: That was trained after it.
        labels_new: Expert labels of the round.
        labels_total: That the policy learned from.
        takeovers: Times that the expert took control in the round.
        context_switches: Times that control changed.
        help_requests: Times that the rule asked for help.
        expert_ticks: That the expert drove.
        policy_ticks: That the policy drove.
        intervention_rate: Share of the round's ticks that the expert drove.
        panel: Summary of the panel by which policies are chosen.
        panels: Of every further panel, by name.
        against_best: The policy beside the best one before it, see `evaluation.Paired`; None: the first.
        shift: How far the policy goes from its data, see `evaluation.Shift`; None: too little data.
    """

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
    panels: dict[str, dict[str, Any]]
    against_best: dict[str, Any] | None
    shift: dict[str, float] | None


def run(
    config: RunConfig,
    contract_path: Path,
    out: Path,
    panels: Sequence[Panel],
    final: Panel | None,
    *,
    collect: Collect,
    progress: Progress,
    resume: bool,
    workers: int,
    engine: str = "processes",
    pictures: bool = True,
) -> dict[str, Any]:
    """Runs DAgger to its end.

    Args:
        config: What to do.
        contract_path: The task contract.
        out: Folder of the run.
        panels: Held-out rollouts that every policy is judged on. The first one chooses the best policy and when to
            stop.
        final: Other rollouts for the recommended policy alone, on which nothing was chosen; None: none.
        collect: How rounds are recorded.
        progress: Told what happens.
        resume: Go on with the run that is in `out`, from its last finished round.
        workers: Processes for the panels.
        engine: Of the panels, one of `evaluation.ENGINES`.
        pictures: Whether the report has pictures of the rollouts.

    Returns:
        What stands in result.json.

    Raises:
        DaggerError: If `out` holds another run, or is damaged; nothing in it was changed then.
    """
    contract = load_contract(contract_path)
    # What cannot be simulated is refused before the folder is made.
    load_plant(contract, contract_path)
    config.training.check(contract)
    if contract.operator.source != "scripted":
        raise DaggerError(
            f"{contract_path}: operator.source: expected scripted, since here a script labels; "
            f"found {contract.operator.source}"
        )
    if len({panel.name for panel in panels}) < len(panels) or not panels:
        raise DaggerError(f"panels: expected at least one, each name once; got {', '.join(p.name for p in panels)}")
    for panel in panels:
        panel.check(contract)
    if config.patience and len(panels[0].rollouts) < FEWEST_PAIRS:
        raise DaggerError(
            f"panel {panels[0].name}: expected at least {FEWEST_PAIRS} rollouts to tell whether a policy is better, "
            f"got {len(panels[0].rollouts)}; take a larger panel, or --patience 0 for as many rounds as asked for"
        )
    _prepare(out, contract_path, contract, config, panels, resume=resume)
    maximize = contract.task.metric.goal is Goal.MAXIMIZE
    results: list[RoundResult] = []
    judged: list[list[PanelResult]] = []  # round by round, panel by panel
    stop = f"{config.rounds} of {config.rounds} rounds done"
    with PanelRunner(contract_path, workers=workers, engine=engine) as runner:
        for k in range(config.rounds + 1):
            new = not all(panel_folder(out, k, panel).exists() for panel in panels)
            round_ = _collect_round(out, contract_path, contract, config, k, collect, progress)
            policy = policy_folder(out, k)
            if not policy.exists():
                train_policy(
                    out,
                    contract,
                    [round_folder(out, i) for i in range(k + 1)],
                    config.training,
                    rule=config.rule,
                    budget=config.options.budget,
                    seed=config.seed,
                    max_labels=config.max_labels,
                    stage=progress.stage,
                )
            judged.append([_evaluate(out, policy, runner, panel, k, progress) for panel in panels])
            first, *others = judged[-1]
            earlier = [of_round[0] for of_round in judged[:-1]]
            labels = round_.labels + (results[-1].labels_total if results else 0)
            results.append(
                RoundResult(
                    round=k,
                    policy=policy.name,
                    labels_new=round_.labels,
                    labels_total=min(labels, config.max_labels or labels),
                    takeovers=round_.takeovers,
                    context_switches=round_.context_switches,
                    help_requests=round_.help_requests,
                    expert_ticks=round_.expert_ticks,
                    policy_ticks=round_.policy_ticks,
                    intervention_rate=round_.intervention_rate,
                    panel=first.summary(),
                    panels={other.panel: other.summary() for other in others},
                    against_best=_against_best(earlier, first, maximize=maximize),
                    shift=_shift(out, contract, k, panels[0]),
                )
            )
            progress.round_done(results[-1])
            if config.max_labels is not None and labels >= config.max_labels:
                stop = f"the {config.max_labels} labels asked for were reached"
                break
            reason = plateau([of_round[0] for of_round in judged], patience=config.patience, maximize=maximize)
            if reason:
                stop = reason
                break
            if new:
                _write_result(out, contract, config, results, judged, None, "not finished")
        best = best_of([of_round[0] for of_round in judged], maximize=maximize)
        last_word = None
        if final is not None:
            last_word = _evaluate(out, policy_folder(out, best), runner, final, best, progress)
    result = _write_result(out, contract, config, results, judged, last_word, stop)
    write_report(
        out,
        contract,
        result,
        contract_path=contract_path,
        pictures=pictures,
        workers=workers,
        stage=progress.stage,
    )
    return result


def _against_best(earlier: Sequence[PanelResult], now: PanelResult, *, maximize: bool) -> dict[str, Any] | None:
    if not earlier or len(now.rollouts) < FEWEST_PAIRS:
        return None
    best = earlier[best_of(earlier, maximize=maximize)]
    return {"policy": best.policy} | asdict(against(best, now, maximize=maximize))


def _shift(out: Path, contract: Contract, k: int, panel: Panel) -> dict[str, float] | None:
    """What a policy was trained on beside what it visits; kept in a file, since it takes a second or two."""
    folder = panel_folder(out, k, panel)
    path = folder.parent / "shift.json"
    if path.is_file():
        kept: dict[str, float] | None = json.loads(path.read_text(encoding="utf-8"))
        return kept
    rounds = [round_folder(out, i) for i in range(k + 1)]
    data = [labelled_frames([e])[0] for e in training_episodes(rounds, contract)]
    visited = [Trace.read(trace_path(folder, key)).rows["observation"] for key in panel.rollouts]
    enough = min(sum(len(e) > 0 for e in data), len(visited)) > 1
    shift = asdict(covariate_shift(data, visited, RowLayout(contract).resolution())) if enough else None
    write_file(path, json.dumps(shift).encode())
    return shift


def _collect_round(
    out: Path, contract_path: Path, contract: Contract, config: RunConfig, k: int, collect: Collect, progress: Progress
) -> Round:
    folder = round_folder(out, k)
    if folder.exists():
        return load_round(folder, contract)
    part = folder.with_name(f".{folder.name}.part")
    _keep_interrupted(part)
    if k == 0 and config.start_from is not None:
        source = round_folder(config.start_from, 0)
        round_ = check_round(source, contract)
        with progress.stage("demonstrations that are there", len(round_.episodes)) as advance:
            shutil.copytree(source, part)
            advance(len(round_.episodes))
        part.replace(folder)
        return round_
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
            policy=None if k == 0 else policy_folder(out, k - 1),
            seeds=range(first, first + count),
            on_episode=lambda _status: advance(1),
        )
    round_ = finish_round(part, contract)
    if len(round_.episodes) != count:
        raise DaggerError(f"{part}: expected {count} recorded episodes, found {len(round_.episodes)}")
    part.replace(folder)
    return round_


def train_policy(
    out: Path,
    contract: Contract,
    rounds: Sequence[Path],
    training: TrainingSettings,
    *,
    rule: str,
    budget: float,
    seed: int,
    max_labels: int | None,
    stage: Stage,
) -> Path:
    """Trains a policy on the labels of some rounds, with the limits that a rule needs, and keeps it in the run.

    Args:
        out: Folder of the run.
        contract: Of its rounds.
        rounds: Folders of finished rounds; the policy gets the number of the last one.
        training: How.
        rule: That the policy is to drive under; the limits of its scores are fitted for it.
        budget: Of rule `thrifty`.
        seed: Of everything random.
        max_labels: Learn from so many labels, the earliest; None: from all.
        stage: Told how far the training is.

    Returns:
        Folder of the policy.

    Raises:
        DaggerError: If a round is not finished, damaged or of another contract, there is nothing to learn from, or the
            policy to start from is not there.
    """
    k = int(rounds[-1].name)
    folder = policy_folder(out, k)
    episodes = training_episodes(rounds, contract)
    observations, labels = (part[:max_labels] for part in labelled_frames(episodes))
    origins = origins_of(episodes)[:max_labels]
    held = training_episodes(rounds, contract, "validation") if contract.splits.validation else []
    warm = k > 0 and training.start == "previous"
    with stage(f"round {k}: training on {len(labels)} labels", training.steps) as advance:
        trained = train(
            contract,
            observations,
            labels,
            training,
            seed=seed,
            origins=origins,
            validation=labelled_frames(held) if held else None,
            previous=read_checkpoint(policy_folder(out, k - 1), contract) if warm else None,
            progress=advance,
        )
    tensors: dict[str, Any] = trained.tensors
    limits: dict[str, Any] = {}
    if rule in ROBOT_GATED:
        more, limits = fit_limits(
            rule,
            contract,
            trained,
            observations,
            labels,
            [_experience(e) for e in episodes],
            budget=budget,
            seed=seed,
        )
        tensors = tensors | more
    elif rule == "hg":
        doubts = [d for f in rounds for e in load_round(f, contract).episodes for d in e.takeover_doubts]
        limits = human_doubt_limit(doubts)
    about = Checkpoint(
        name=folder.name,
        round=k,
        contract_sha256=contract.sha256,
        seed=seed,
        columns=RowLayout(contract).columns(),
        actions=contract.action.dimensions,
        trained_on=tuple(_trained_on(folder, contract) for folder in rounds),
        training=asdict(training) | trained.about,
        limits=limits,
        chunks=training.chunks,
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


def _evaluate(out: Path, policy: Path, runner: PanelRunner, panel: Panel, k: int, progress: Progress) -> PanelResult:
    folder = panel_folder(out, k, panel)
    if folder.exists():
        return runner.run(panel, policy, folder)
    with progress.stage(f"round {k}: panel {panel.name}", len(panel.rollouts)) as advance:
        return runner.run(panel, policy, folder, lambda: advance(1))


def policy_folder(out: Path, k: int) -> Path:
    """Where the policy lies that was trained after a round."""
    return out / "policies" / f"pi_{k:03d}"


def panel_folder(out: Path, k: int, panel: Panel) -> Path:
    """Where the held-out rollouts of a policy lie."""
    return out / "panels" / f"pi_{k:03d}" / panel.name


def _write_result(
    out: Path,
    contract: Contract,
    config: RunConfig,
    rounds: Sequence[RoundResult],
    judged: Sequence[Sequence[PanelResult]],
    final: PanelResult | None,
    stop: str,
) -> dict[str, Any]:
    best = rounds[best_of([of_round[0] for of_round in judged], maximize=contract.task.metric.goal is Goal.MAXIMIZE)]
    result = {
        "schema": RESULT_SCHEMA,
        "task": contract.name,
        "rule": config.rule,
        "seed": config.seed,
        "contract_sha256": contract.sha256,
        "rounds": [asdict(r) for r in rounds],
        "recommended": {"round": best.round, "policy": best.policy},
        "final": final.summary() if final is not None else None,
        "interventions": _interventions(judged),
        "stop": {"reason": stop},
    }
    write_file(out / "result.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def _interventions(judged: Sequence[Sequence[PanelResult]]) -> dict[str, Any] | None:
    """Whether the operator drives less from round to round, on the same rollouts, of the first panel with help."""
    for of_panel in zip(*judged, strict=True):
        shares = np.array([result.interventions for result in of_panel])
        if shares.any():
            fall = trend(shares)
            return {"panel": of_panel[0].panel} | asdict(fall) | {"falling": fall.falling}
    return None


def _prepare(
    out: Path,
    contract_path: Path,
    contract: Contract,
    config: RunConfig,
    panels: Sequence[Panel],
    *,
    resume: bool,
) -> None:
    """Checks the folder, or makes it."""
    if config.start_from is not None:
        check_round(round_folder(config.start_from, 0), contract)
    wanted = asdict(config) | {
        "start_from": manifest_sha256(round_folder(config.start_from, 0)) if config.start_from else None,
        "options": asdict(config.options),
        "contract_sha256": contract.sha256,
        "panels": {panel.name: panel.sha256 for panel in panels},
    }
    for name in ("rounds", "patience"):
        del wanted[name]  # a finished run may be given more of them
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
        if policy_folder(out, k).exists():
            check_policy(out, k, contract)
        for folder, panel in ((panel_folder(out, k, panel), panel) for panel in panels):
            if folder.exists():
                PanelResult.read(folder).check(panel, contract, folder)


def check_policy(out: Path, k: int, contract: Contract) -> None:
    """Reads a policy, and compares the rounds that it was trained on with those that are there.

    Raises:
        DaggerError: If it is damaged, or a round is gone or changed.
    """
    about, _ = load_checkpoint(policy_folder(out, k), contract)
    for source in about.trained_on:
        folder = round_folder(out, int(source["round"]))
        if manifest_sha256(folder) != source["manifest_sha256"]:
            raise DaggerError(f"{folder}: expected the round that {about.name} was trained on; it is gone or changed")


def _keep_interrupted(part: Path) -> None:
    """Moves what an interrupted round left out of the way: what a robot did is never deleted."""
    if part.exists():
        part.replace(next(name for name in _free_names(part) if not name.exists()))


def _free_names(part: Path) -> Iterator[Path]:
    stem = part.name.strip(".").removesuffix(".part")
    return (part.with_name(f"{stem}.interrupted.{i}") for i in range(1_000_000))
