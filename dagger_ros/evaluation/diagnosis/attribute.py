"""Why one rollout failed: run again with one cause removed at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dagger_ros.contract import Goal, Scores
from dagger_ros.evaluation.diagnosis.judges import JUDGES
from dagger_ros.evaluation.diagnosis.record import Reruns, RolloutDiagnosis
from dagger_ros.evaluation.diagnosis.reruns import REPEATS, Laboratory, Rerun, Share, When
from dagger_ros.evaluation.diagnosis.taught import Lesson, Taught
from dagger_ros.evaluation.diagnosis.usual import Usual, wrong_decisions
from dagger_ros.evaluation.diagnosis.worlds import REMOVABLE, Cause, World
from dagger_ros.evaluation.trace import Trace

__all__ = ["attribute"]
Rows = np.ndarray[Any, np.dtype[Any]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Share of unfamiliar observations that is more than chance, and that is enough whatever the nearest labels say; tuned
# on planted failures (docs/diagnose.md).
_MANY, _MOST = 0.2, 0.5
# Noise on what the policy sees, in resolutions of each stream, that should not decide whether it succeeds.
_NUDGE = 1.0


def attribute(
    laboratory: Laboratory, world: World, trace: Trace, *, ticks: int, usual: Usual, taught: Taught | None = None
) -> RolloutDiagnosis:
    """Gives a failed rollout its cause.

    Args:
        laboratory: Of the policy.
        world: In which it failed.
        trace: As it was recorded.
        ticks: Longest rollout of the panel.
        usual: In rollouts of the policy that succeed.
        taught: What it was trained on; None: not known.
    """
    case = _Case(laboratory, world, trace, ticks, usual, taught)
    cause = case.cause()
    onset_s = case.onset / laboratory.contract.timing.control_rate_hz if case.onset >= 0 else -1.0
    return RolloutDiagnosis(
        condition=trace.result.condition,
        seed=trace.result.seed,
        failure=trace.result.failure,
        cause=cause.value if cause is not None else "",
        onset_tick=case.onset,
        onset_s=round(onset_s, 6),
        evidence=tuple(case.evidence),
        reruns=tuple(case.reruns),
    )


@dataclass
class _Case:
    laboratory: Laboratory
    world: World
    trace: Trace
    ticks: int
    usual: Usual
    taught: Taught | None
    onset: int = -1
    evidence: list[str] = field(default_factory=list)
    reruns: list[Reruns] = field(default_factory=list)

    def cause(self) -> Cause | None:
        """The first that can be shown, in the order in which one would explain the next."""
        if self._is_misjudged():
            return Cause.EVALUATION
        again, recorded = self._run(self.world)[0], self.trace.result
        if again.success:
            self.evidence.append(f"The same rollout, run again, succeeds: {_OTHER}.")
            return None
        if (again.failure, again.ticks) != (recorded.failure, recorded.ticks):
            self.evidence.append(f"The same rollout, run again, fails in another way: {_OTHER}.")
        solvable = self._expert_saves()
        return self._removed(solvable) or self._decided(solvable)

    def _is_misjudged(self) -> bool:
        contract = self.laboratory.contract
        assert contract.simulation is not None
        task, failure = contract.simulation.task, self.trace.result.failure
        judge = JUDGES.get(task)
        if judge is None:
            self.reruns.append(Reruns(Cause.EVALUATION.value, 0, 0))
            self.evidence.append(f"The judgement was not tested: there is no second judge for task {task}.")
        else:
            plant = self.laboratory.plant(self.world)
            plant.show(self.trace.scene[-1].astype(float))
            met = judge(contract, np.vstack([self.trace.rows["privileged"], plant.truth()]))
            self.reruns.append(Reruns(Cause.EVALUATION.value, int(met), 1))
            if met:
                self.evidence.append(
                    "Judged anew from the true state, the recorded rollout met the criterion "
                    f"({contract.task.criterion}); the result says {failure}."
                )
                return True
        return self._ended_early("The panel ended it", None)

    def _ended_early(self, said: str, when: When | None) -> bool:
        """Whether it succeeds, or the expert, where the panel gives it less time than the contract does."""
        contract = self.laboratory.contract
        if self.ticks >= contract.horizon_ticks or len(self.trace.rows) < self.ticks:
            return False
        longer = self._run(self.world, ticks=contract.horizon_ticks, when=when)[0]
        self.reruns.append(Reruns("horizon of the panel", int(longer.success), 1))
        if longer.success:
            self.evidence.insert(
                0,
                f"{said} after {self._time(self.ticks)}; with the contract's {contract.task.horizon_s:g} s it is done "
                f"after {self._time(longer.ticks)}.",
            )
        return longer.success

    def _expert_saves(self) -> bool:
        """Whether the expert does it from the start; finds the last tick from which it still does."""
        saved = self._run(self.world, when=_from(0))[0].success
        self.reruns.append(Reruns("expert", int(saved), 1))
        if not saved:
            return False
        low, high = 0, len(self.trace.rows)
        while high - low > 1:
            middle = (low + high) // 2
            if self._run(self.world, when=_from(middle))[0].success:
                low = middle
            else:
                high = middle
        self.onset = low
        return True

    def _removed(self, solvable: bool) -> Cause | None:
        """The removable cause without which it succeeds: not by luck, unless it stops the expert too."""
        there = [cause for cause in REMOVABLE if self.world.has(cause)]
        healed = {cause: self._without(cause) for cause in there}
        luck = {cause: self._luck(cause, healed[cause]) for cause in there if healed[cause].most}
        shown = [cause for cause, why in luck.items() if not why] or ([] if solvable else list(luck))
        if not shown:
            self.evidence += [
                f"Without {_WORDS[cause]} it succeeds too ({healed[cause]} reruns), which shows little: {why}."
                for cause, why in luck.items()
            ]
        if not shown and len(there) > 1 and self.world.plain != self.world and self._is_like_others(self._plainly):
            self.evidence.append(f"Only without every perturbation it succeeds ({self._plainly} reruns).")
            shown = [cause for cause in there if self.world.perturbs(cause)]
        if not shown:
            return None
        alone = {}
        if len(shown) > 1:
            for cause in shown:
                others = [c for c in there if c is not cause]
                alone[cause] = self._repeated(f"all but {cause.value}", self.world.without(*others))
        # Of equals the one without which it succeeds soonest.
        best = max(shown, key=lambda c: (healed[c].share - (alone[c].share if alone else 0.0), -healed[c].ticks))
        self._say_removed(best, healed, alone)
        return best

    @cached_property
    def _plainly(self) -> Share:
        """Without any perturbation."""
        return self._repeated("every perturbation", self.world.plain)

    def _luck(self, cause: Cause, share: Share) -> str:
        """Why that it succeeds without a cause shows little; empty: it shows the cause."""
        perturbs = self.world.perturbs(cause)
        if not self._is_like_others(share):
            return (
                f"{100 * share.wrong:.0f} % of its decisions are wrong then, in rollouts that succeed at most "
                f"{100 * self.usual.wrong:.0f} %"
            )
        if not perturbs and share.healed < REPEATS:
            return "the contract has it always, and not each rerun succeeds"
        if perturbs and self.world.without(cause) != self.world.plain and not self._plainly.most:
            return "it fails without any perturbation"
        if self._is_on_edge and not self._is_typical(share):
            return (
                f"a little noise does that too, and then it takes {self._time(share.ticks)}, unlike a typical success"
            )
        return ""

    def _is_like_others(self, share: Share) -> bool:
        """Whether most reruns succeed, with no more wrong decisions than rollouts have that succeed."""
        return share.most and share.wrong <= self.usual.wrong

    @cached_property
    def _is_on_edge(self) -> bool:
        """Whether noise that should not matter is enough for it to succeed."""
        key, ticks = self.trace.result.key, self.ticks
        runs = [
            self.laboratory.one(key, self.world, ticks=ticks, repeat=r, jitter=_NUDGE) for r in range(1, 1 + REPEATS)
        ]
        share = sum(runs[1:], runs[0])
        self.reruns.append(Reruns("nothing", share.healed, share.of))
        if share.most:
            self.evidence.append(
                f"It is on the edge: with noise of one resolution on what it sees it succeeds in {share} reruns "
                "without anything else changed."
            )
        return share.most

    def _is_typical(self, share: Share) -> bool:
        """Whether it succeeds as typical rollouts do."""
        return share.wrong <= self.usual.typical_wrong and share.ticks <= self.usual.typical_ticks

    def _say_removed(self, best: Cause, healed: dict[Cause, Share], alone: dict[Cause, Share]) -> None:
        said = [f"Without {_WORDS[best]} it succeeds ({healed[best]} reruns, after {self._time(healed[best].ticks)})."]
        if best in alone:
            said.append(f"With nothing else disturbed it succeeds in {alone[best]}.")
        others = [f"{c.value} {share}" for c, share in healed.items() if c is not best]
        if others:
            said.append(f"Without the others: {', '.join(others)}.")
        self.evidence[:0] = said

    def _without(self, cause: Cause) -> Share:
        return self._repeated(cause.value, self.world.without(cause), every=not self.world.perturbs(cause))

    def _decided(self, solvable: bool) -> Cause:
        """What is left: the plant, or the policy's decisions."""
        world = self.world
        if world.plain != world and not self._plainly.most:
            world = world.plain
            solvable = self._run(world, when=_from(0))[0].success
        if not solvable:
            if self._ended_early("Not even the expert does it before the panel ends it", _from(0)):
                return Cause.EVALUATION
            self.evidence.insert(
                0,
                "Not even the expert, which sees the true state, does it from the start, and nothing that can be "
                "removed changes that: the plant does not do what it is told, or the task cannot be done.",
            )
            return Cause.CONTROL
        return self._covered(world)

    def _covered(self, world: World) -> Cause:
        """Whether the decisions were wrong where there was nothing to learn from."""
        limit = self.usual.novelty if world == self.world else 1.0
        _, rows, _ = self._run(world)
        wrong = wrong_decisions(rows, self.laboratory.contract, self.laboratory.plant(world).task)
        if not np.isfinite(rows["novelty"]).any():
            self.reruns.append(Reruns(Cause.DATA_COVERAGE.value, 0, 0))
            self.evidence.insert(
                0,
                "The expert does it from the start, the policy does not. Whether the policy had anything to learn "
                "from there was not tested: it does not say how novel an observation is.",
            )
            return Cause.PLANNING

        def is_unfamiliar(_tick: int, scores: Scores) -> bool:
            return not scores.novelty <= limit

        unfamiliar = self._repeated(Cause.DATA_COVERAGE.value, world, when=is_unfamiliar)
        known = self._repeated(Cause.PLANNING.value, world, when=lambda tick, scores: not is_unfamiliar(tick, scores))
        first = self._first_wrong(world, wrong)
        share = float((~(rows["novelty"][: first + 1] <= limit)).mean())
        lesson = self._lesson(world, rows, wrong)
        if self._lacks_data(unfamiliar, known, share, lesson):
            cause, where = Cause.DATA_COVERAGE, "it had learned from nothing like this"
        else:
            cause, where = Cause.PLANNING, "it had learned from states like these"
        said = [
            f"The expert does it, and the policy decided wrongly where {where}: with the expert in its place in "
            f"unfamiliar states alone {unfamiliar} reruns succeed, in familiar states alone {known}.",
            f"Until its first wrong decision, at {self._time(first)}, {100 * share:.0f} % of what it saw was "
            "unfamiliar: further from what it was trained on than 95 % of that.",
        ]
        self.evidence[:0] = said if lesson is None else [*said, f"Where it first decided wrongly, {lesson.value}."]
        return cause

    def _lesson(self, world: World, rows: Rows, wrong: Mask) -> Lesson | None:
        if self.taught is None or not wrong.any():
            return None
        return self.taught.lesson(rows, wrong, self.laboratory.contract, self.laboratory.plant(world).task)

    def _lacks_data(self, unfamiliar: Share, known: Share, share: float, lesson: Lesson | None) -> bool:
        """Whether help in unfamiliar states does more than help in familiar ones; of equals, where it went wrong."""
        sign = 1 if self.laboratory.contract.task.metric.goal is Goal.MAXIMIZE else -1
        if unfamiliar.most != known.most:
            return unfamiliar.most
        if not known.most and unfamiliar.metric != known.metric:
            return sign * unfamiliar.metric > sign * known.metric
        return share > (_MANY if lesson in (None, Lesson.COARSE) else _MOST)

    def _first_wrong(self, world: World, wrong: Mask) -> int:
        """First tick at which the policy decides wrongly; if none, the onset or the end."""
        last = self.onset if world == self.world and self.onset >= 0 else len(wrong) - 1
        return min(int(wrong.argmax()), last) if wrong.any() else last

    def _run(self, world: World, *, when: When | None = None, ticks: int | None = None) -> Rerun:
        return self.laboratory.run(self.trace.result.key, world, ticks=ticks or self.ticks, when=when)

    def _repeated(self, removed: str, world: World, *, when: When | None = None, every: bool = False) -> Share:
        share = self.laboratory.repeated(self.trace.result.key, world, ticks=self.ticks, when=when, every=every)
        self.reruns.append(Reruns(removed, share.healed, share.of))
        return share

    def _time(self, ticks: float) -> str:
        return f"{ticks / self.laboratory.contract.timing.control_rate_hz:.2f} s"


_OTHER = "code, model or policy are not those that were judged"
_WORDS = {
    Cause.PERCEPTION: "what disturbs its view of the world",
    Cause.STATE_ESTIMATION: "what disturbs its view of its own state",
    Cause.CONTROL: "what keeps the actuators from doing what they are told",
    Cause.TIMING: "delays and losses",
}


def _from(first: int) -> When:
    return lambda tick, _scores: tick >= first
