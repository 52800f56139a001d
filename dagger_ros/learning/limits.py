"""Limits for the rules in which the robot asks for help, and the networks that two of their scores need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dagger_ros.contract import NEVER_NS, Contract, DaggerError, Scores
from dagger_ros.learning.bc import Trained
from dagger_ros.learning.network import Array, Perceptrons, minimise
from dagger_ros.policy import MlpEnsemble
from dagger_ros.supervisor import FEWEST_TICKS, Limits, fit_thrifty

__all__ = ["Experience", "LimitSettings", "fit_limits", "human_doubt_limit"]


@dataclass(frozen=True)
class LimitSettings:
    """How limits are fitted.

    Args:
        unsafe_share: So much of the data is to count as deviating, which gives the tolerance. Source: SafeDAgger;
            LazyDAgger's tau_sup is such a tolerance too.
        ensemble_share: Of `ensemble`: so much of the data is to lie above each limit. The source searches; with more
            the policy drives so seldom that only states of the expert are labelled.
        back: Of `lazy`: share of the squared tolerance below which control goes back. Source: LazyDAgger, tau_auto.
        agreement_s: Of `lazy`: for how long the discrepancy must be below before control goes back, so that actions
            that only cross each other are no agreement. The source has one step, of environments that are slower.
        discount: Of `thrifty`, for each tick. Source: ThriftyDAgger, gamma.
        success_ask: Of `thrifty`: discounted probability of success below which help is asked for, until there is
            enough to fit it to. Source: ThriftyDAgger.
        success_back: The same for taking control back.
        hidden: Units of each hidden layer of the networks for deviation and risk.
        steps: Gradient steps of each.
        batch: Frames of a batch.
        success_share: Of `thrifty`: so much of a batch are ends with success. Source: ThriftyDAgger.
        follow: Of `thrifty`: share of the way that the target networks go in each step. The source has a tenth of it,
            and four times the steps; tuned on rounds of `peg`, where it tells failed episodes best (AUC 0.99).
    """

    unsafe_share: float = 0.2
    ensemble_share: float = 0.05
    back: float = 0.25
    agreement_s: float = 0.3
    discount: float = 0.9999
    success_ask: float = 0.48
    success_back: float = 0.495
    hidden: tuple[int, ...] = (128, 128)
    steps: int = 3000
    batch: int = 64
    success_share: float = 0.1
    follow: float = 0.05


@dataclass(frozen=True)
class Experience:
    """One recorded episode, tick by tick, while somebody drove.

    Args:
        observations: (T, O) in the contract's order and units.
        executed: (T, A) what was sent, in the action's units.
        by_policy: (T,) bool, the policy drove.
        success: How it ended.
    """

    observations: Array
    executed: Array
    by_policy: Array
    success: bool


def fit_limits(
    rule: str,
    contract: Contract,
    trained: Trained,
    observations: Array,
    labels: Array,
    experiences: Sequence[Experience],
    *,
    budget: float,
    seed: int,
    settings: LimitSettings | None = None,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Fits the limits of one rule to a policy.

    Args:
        rule: One of `supervisor.ROBOT_GATED`.
        contract: Of everything.
        trained: The policy, trained with `bootstrap`.
        observations: (N, O) that it was trained on.
        labels: (N, A) what the expert did there.
        experiences: Episodes of all rounds.
        budget: Of `thrifty`.
        seed: Of networks and batches.
        settings: How; None: as in the sources.

    Returns:
        Further tensors of the policy, and what stands in its `policy.json` as `limits`.

    Raises:
        DaggerError: For another rule.
    """
    settings = settings or LimitSettings()
    fitters: Mapping[str, Callable[[_Fit], tuple[dict[str, Array], Limits]]] = {
        "safe": _safe,
        "lazy": _lazy,
        "ensemble": _ensemble,
        "thrifty": _thrifty,
    }
    if rule not in fitters:
        raise DaggerError(f"limits: expected a rule that asks for help ({', '.join(fitters)}), got {rule!r}")
    fit = _Fit(contract, trained, observations, labels, experiences, budget, seed, settings)
    tensors, limits = fitters[rule](fit)
    about = {"labels": len(labels), "episodes": len(experiences), "deviating": float(fit.deviating)}
    return tensors, {
        "rule": rule,
        "ask": limits.ask.given(),
        "back": limits.back.given(),
        "back_ticks": limits.back_ticks,
        "fit": about,
    }


def human_doubt_limit(doubts: Sequence[float]) -> dict[str, Any]:
    """The doubt beyond which a person took over: what may be the supervisor's `doubt_limit`.

    Args:
        doubts: Of the policy at each takeover under rule `hg`, in the order in which they happened.

    Returns:
        What stands in `policy.json` as `limits`; empty without a takeover.

    Source: Kelly et al. (2018), arXiv 1810.02890: the mean of the last quarter of the log.
    """
    if not doubts:
        return {}
    last = doubts[-max(1, len(doubts) // 4) :]
    return {"rule": "hg", "doubt_limit": float(np.mean(last)), "fit": {"takeovers": len(doubts)}}


class _Fit:
    """What the limits of any rule are fitted from. Actions and distances are in half bound ranges here."""

    def __init__(
        self,
        contract: Contract,
        trained: Trained,
        observations: Array,
        labels: Array,
        experiences: Sequence[Experience],
        budget: float,
        seed: int,
        settings: LimitSettings,
    ) -> None:
        self.settings, self.budget, self.experiences = settings, budget, experiences
        self.network, self.observations = MlpEnsemble(trained.tensors), observations
        self.action_size = labels.shape[1]
        tensors = trained.tensors
        self._mean, self._scale = tensors["input_mean"].astype(np.float64), tensors["input_scale"].astype(np.float64)
        lower = np.array([d.lower for d in contract.action.dimensions_])
        upper = np.array([d.upper for d in contract.action.dimensions_])
        self._middle, self._half_range = (lower + upper) / 2, (upper - lower) / 2
        self.discrepancy: Array = np.linalg.norm(self.share(trained.held_out) - self.share(labels), axis=1)
        if not np.isfinite(self.discrepancy).all():
            raise DaggerError(
                "limits: expected finite actions on every labelled frame, got others: a training that failed"
            )
        self.tolerance = float(np.quantile(self.discrepancy, 1.0 - settings.unsafe_share))
        self.generator = torch.Generator().manual_seed(seed)
        self.deviating = 0.0
        self.back_ticks = max(1, round(settings.agreement_s * contract.timing.control_rate_hz))

    def share(self, actions: Array) -> Array:
        """Actions within the bounds, -1 to 1."""
        result: Array = np.clip((actions - self._middle) / self._half_range, -1.0, 1.0)
        return result

    def inputs(self, observations: Array) -> torch.Tensor:
        """Normalised as the policy's."""
        return torch.tensor((observations - self._mean) / self._scale, dtype=torch.float32)

    def of_policy(self, observations: Array) -> tuple[Array, Array]:
        """(N, A) actions from -1 to 1, and (N,) doubt."""
        actions = np.empty((len(observations), self.action_size))
        scores = [self.network.act(o, a, NEVER_NS) for o, a in zip(observations, actions, strict=True)]
        return self.share(actions), np.array([score.doubt for score in scores])

    def minimise(self, network: Perceptrons, loss: Callable[[], torch.Tensor]) -> None:
        """Trains a network of a score."""
        minimise(network, loss, steps=self.settings.steps, learning_rate=1e-3, weight_decay=1e-5)

    def deviation_tensors(self, tolerance: float) -> dict[str, Array]:
        """A network that tells where the policy does something else than the expert, by more than a distance."""
        settings, generator = self.settings, self.generator
        deviates = self.discrepancy > tolerance
        self.deviating = float(deviates.mean())
        inputs, targets = self.inputs(self.observations), torch.tensor(deviates, dtype=torch.float32)
        network = Perceptrons(1, (inputs.shape[1], *settings.hidden, 1), generator)

        def loss() -> torch.Tensor:
            index = torch.randint(0, len(inputs), (settings.batch,), generator=generator)
            logits = network(inputs[index][None])[0, :, 0]
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets[index])

        self.minimise(network, loss)
        return network.tensors("deviation.")


def _safe(fit: _Fit) -> tuple[dict[str, Array], Limits]:
    """The same classifier takes and gives control. Source: Zhang and Cho (2016), arXiv 1605.06450."""
    return fit.deviation_tensors(fit.tolerance), Limits(Scores(deviation=0.5), Scores(deviation=0.5))


def _lazy(fit: _Fit) -> tuple[dict[str, Array], Limits]:
    """The classifier asks; control goes back when the true discrepancy is small. Source: arXiv 2104.00053."""
    back = float(np.sqrt(fit.settings.back)) * fit.tolerance
    return fit.deviation_tensors(fit.tolerance), Limits(Scores(deviation=0.5), Scores(discrepancy=back), fit.back_ticks)


def _ensemble(fit: _Fit) -> tuple[dict[str, Array], Limits]:
    """Discrepancy and doubt at once, the same both ways. Source: Menda et al. (2018), arXiv 1807.08364.

    The source searches for its limits; here each is a quantile on the data.
    """
    _, doubt = fit.of_policy(fit.observations)
    discrepancy, doubt_limit = (
        float(np.quantile(v, 1.0 - fit.settings.ensemble_share)) for v in (fit.discrepancy, doubt)
    )
    limits = Scores(discrepancy=discrepancy, doubt=doubt_limit)
    fit.deviating = float((fit.discrepancy > limits.discrepancy).mean())
    return {}, Limits(limits, limits)


def _thrifty(fit: _Fit) -> tuple[dict[str, Array], Limits]:
    """Doubt and risk ask, within a budget. Source: Hoque et al. (2021), arXiv 2109.08273, and its code."""
    settings = fit.settings
    back_discrepancy = float(np.sqrt((fit.discrepancy**2).mean()))
    network = _train_risk(fit)
    met = [e.observations[e.by_policy] for e in fit.experiences]
    observations = np.concatenate(met) if met else fit.observations[:0]
    if len(observations) > FEWEST_TICKS:
        actions, doubt = fit.of_policy(observations)
        risk = 1.0 - _success(network, fit.inputs(observations), actions)
        limits = fit_thrifty(doubt, risk, fit.budget, back_discrepancy=back_discrepancy)
    else:
        _, doubt = fit.of_policy(fit.observations)
        limits = Limits(
            Scores(doubt=float(np.quantile(doubt, 1.0 - fit.budget)), risk=1.0 - settings.success_ask),
            Scores(discrepancy=back_discrepancy, risk=1.0 - settings.success_back),
        )
    fit.deviating = float((fit.discrepancy > back_discrepancy).mean())
    return network.tensors("risk."), limits


def _train_risk(fit: _Fit) -> Perceptrons:
    """Two networks for the discounted probability of success, by temporal differences; the lower one counts.

    Running into the horizon ends an episode without success, as in the source's own rollouts.
    """
    settings, generator = fit.settings, fit.generator
    observations = np.concatenate([e.observations for e in fit.experiences])
    executed = fit.share(np.concatenate([e.executed for e in fit.experiences]))
    actions, _ = fit.of_policy(observations)
    lengths = [len(e.observations) for e in fit.experiences]
    last = np.zeros(len(observations), bool)
    last[np.cumsum(lengths) - 1] = True
    following = np.arange(len(observations)) + ~last
    reward = last & np.repeat([e.success for e in fit.experiences], lengths)
    here = torch.cat([fit.inputs(observations), torch.tensor(executed, dtype=torch.float32)], dim=1)
    then = torch.cat([fit.inputs(observations), torch.tensor(actions, dtype=torch.float32)], dim=1)[following]
    rewards, goes_on = torch.tensor(reward, dtype=torch.float32), torch.tensor(~last, dtype=torch.float32)
    ends = torch.tensor(np.flatnonzero(reward))
    network = Perceptrons(2, (here.shape[1], *settings.hidden, 1), generator)
    target = copy.deepcopy(network)
    of_ends = min(round(settings.batch * settings.success_share), settings.batch) if len(ends) else 0

    def loss() -> torch.Tensor:
        target.follow(network, settings.follow)
        index = torch.randint(0, len(here), (settings.batch,), generator=generator)
        if of_ends:
            index[:of_ends] = ends[torch.randint(0, len(ends), (of_ends,), generator=generator)]
        with torch.no_grad():
            later = torch.sigmoid(target(then[index][None])).amin(dim=0)[:, 0]
            wanted = rewards[index] + settings.discount * goes_on[index] * later
        return ((torch.sigmoid(network(here[index][None]))[..., 0] - wanted) ** 2).mean(dim=1).sum()

    fit.minimise(network, loss)
    return network


def _success(network: Perceptrons, inputs: torch.Tensor, actions: Array) -> Array:
    """(N,) discounted probability of success."""
    with torch.no_grad():
        both = torch.cat([inputs, torch.tensor(actions, dtype=torch.float32)], dim=1)
        result: Array = torch.sigmoid(network(both[None])).amin(dim=0)[:, 0].numpy()
    return result
