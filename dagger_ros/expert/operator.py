"""A simulated person who watches the policy, takes over when it goes wrong and hands back when it agrees again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from dagger_ros.contract import Contract, ExpertIntent, InterventionReason, Mode, Row
from dagger_ros.expert.labeller import Expert, Vector

__all__ = ["OperatorSettings", "SimulatedOperator"]

# Keeps the operator's draws apart from other uses of the same seed.
_OPERATOR_STREAM = 2
_DRIVEN = (Mode.POLICY, Mode.EXPERT)
# A deadman that is pressed for so long without effect is let go.
_PATIENCE_WITH_DEADMAN_S = 0.5


@dataclass(frozen=True)
class OperatorSettings:
    """How the operator of one task judges and reacts. Disagreement is in half bound ranges of the action.

    Args:
        tolerance: Distance between the policy's and the expert's action that the operator lets pass.
        reaction_s: Mean time from seeing to acting.
        reaction_spread_s: Standard deviation of that time.
        patience_s: Time in which the task must progress by `least_progress`.
        least_progress: In the unit of the expert's progress.
        shortest_takeover_s: Control is kept at least for so long.
        agreement_s: Control goes back when the policy has agreed for so long.
        agreement: Share of `tolerance` below which the policy agrees (hysteresis).
        lapse_share: Share of the reactions that come late, because the operator looked away.
        lapse_s: How much later.
    """

    tolerance: float
    reaction_s: float
    reaction_spread_s: float
    patience_s: float
    least_progress: float
    shortest_takeover_s: float
    agreement_s: float
    agreement: float
    lapse_share: float
    lapse_s: float


class SimulatedOperator:
    """Human gating by a rule: sees the last tick, as a person does, and acts a reaction time later.

    Args:
        expert: Gives actions and progress.
        settings: How the operator judges.
        contract: Gives the period and the action's bounds.
    """

    def __init__(self, expert: Expert, settings: OperatorSettings, contract: Contract) -> None:
        self.operator_id = f"simulated operator with {expert.name}"
        self._expert = expert
        self._settings = settings
        self._period_s = contract.timing.period_ns * 1e-9
        lower = np.array([d.lower for d in contract.action.dimensions_])
        upper = np.array([d.upper for d in contract.action.dimensions_])
        self._middle, self._half_range = (lower + upper) / 2, (upper - lower) / 2
        self._seen_ticks = self._held_ticks = self._agreed_ticks = self._reaction_ticks = self._ignored_ticks = 0
        self._progress_at_takeover = 0.0
        self._drove = False  # since the deadman is pressed
        self._window: deque[float] = deque(maxlen=1 + self._ticks(settings.patience_s))
        self._wanted: Vector = np.full(len(lower), np.nan)
        self._rng = np.random.default_rng(0)
        self._intent = ExpertIntent()
        self._reset()

    def start_episode(self, seed: int) -> None:
        """Watches from the start, with the reaction times of this seed."""
        self._rng = np.random.default_rng([seed, _OPERATOR_STREAM])
        self._reset()

    def label(self, row: Row, previous: Row | None, out: Vector) -> ExpertIntent:
        """The expert's action; it is a label only while the operator has control."""
        self._expert.act(row["privileged"], out)
        before, self._wanted = self._wanted, out.copy()
        progress = self._expert.progress(row["privileged"])
        intent, mode = self._intent, None if previous is None else Mode(previous["mode"])
        asked = previous is not None and bool(previous["help"])
        # A robot that waits is sent on its way, unless it waits for help.
        intent.resume = mode is Mode.HOLD and not intent.takeover and not asked
        if previous is None or (mode not in _DRIVEN and (intent.takeover or not asked)):
            self._ignored_ticks += intent.takeover
            if self._ignored_ticks > self._ticks(_PATIENCE_WITH_DEADMAN_S):
                self._reset()  # lets go, to press anew
            return intent
        self._ignored_ticks = 0
        disagreement = self._disagreement(previous["policy_action"], before)
        if not intent.takeover:
            self._watch_for_takeover(disagreement, progress, asked=asked)
        elif self._drove and mode is Mode.POLICY:
            self._reset()  # the rule took control back: lets go
        else:
            self._drove = mode is Mode.EXPERT
            self._watch_for_hand_back(disagreement, progress)
        return intent

    def _watch_for_takeover(self, disagreement: float, progress: float, *, asked: bool) -> None:
        self._window.append(progress)
        stuck = (
            len(self._window) == self._window.maxlen
            and max(self._window) - self._window[0] < self._settings.least_progress
        )
        if disagreement <= self._settings.tolerance and not stuck and not asked:
            self._seen_ticks = 0
            return
        if self._seen_ticks == 0:
            self._reaction_ticks = self._draw_reaction()
        self._seen_ticks += 1
        if self._seen_ticks < self._reaction_ticks:
            return
        if asked:
            self._take(InterventionReason.ASKED, progress)
        else:
            self._take(InterventionReason.NO_PROGRESS if stuck else InterventionReason.TOLERANCE, progress)

    def _watch_for_hand_back(self, disagreement: float, progress: float) -> None:
        self._held_ticks += 1
        agrees = disagreement < self._settings.tolerance * self._settings.agreement
        self._agreed_ticks = self._agreed_ticks + 1 if agrees else 0
        progressed = (
            self._intent.reason is not InterventionReason.NO_PROGRESS
            or progress - self._progress_at_takeover >= self._settings.least_progress
        )
        if (
            progressed
            and self._held_ticks >= self._ticks(self._settings.shortest_takeover_s)
            and self._agreed_ticks >= self._ticks(self._settings.agreement_s)
        ):
            self._reset()
            self._intent.resume = True

    def _take(self, reason: InterventionReason, progress: float) -> None:
        self._reset()
        self._intent.takeover = self._intent.label = True
        self._intent.reason = reason
        self._progress_at_takeover = progress

    def _reset(self) -> None:
        self._intent.label = self._intent.takeover = self._intent.resume = False
        self._intent.reason = InterventionReason.NONE
        self._window.clear()
        self._seen_ticks = self._held_ticks = self._agreed_ticks = self._reaction_ticks = self._ignored_ticks = 0
        self._progress_at_takeover = 0.0
        self._drove = False

    def _disagreement(self, policy: Vector, wanted: Vector) -> float:
        """Distance of what the policy wanted (as the bounds let it through) from what the operator had in mind."""
        policy = np.clip((policy - self._middle) / self._half_range, -1, 1)
        wanted = np.clip((wanted - self._middle) / self._half_range, -1, 1)
        return float(np.linalg.norm(policy - wanted))

    def _draw_reaction(self) -> int:
        time_s = self._rng.normal(self._settings.reaction_s, self._settings.reaction_spread_s)
        if self._rng.random() < self._settings.lapse_share:
            time_s += self._settings.lapse_s
        return max(1, self._ticks(time_s))

    def _ticks(self, time_s: float) -> int:
        return round(time_s / self._period_s)
