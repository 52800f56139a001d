"""Limits of the rules that ask for help, fitted to a small policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conftest import contract_path
from dagger_ros.contract import NEVER_NS, DaggerError, RowLayout, load_contract
from dagger_ros.policy import MlpEnsemble

pytest.importorskip("torch")
from dagger_ros.learning import Experience, LimitSettings, TrainingSettings, fit_limits, human_doubt_limit, train
from dagger_ros.supervisor import ROBOT_GATED, Limits

pytestmark = pytest.mark.torch
ENSEMBLE = TrainingSettings(members=3, hidden=(32,), steps=400, batch=32, bootstrap=True)
QUICK = LimitSettings(steps=1200, hidden=(32,), follow=0.2)
COUNT, EPISODES = 300, 30


@pytest.fixture(scope="module")
def material() -> dict[str, Any]:
    """Labels that follow a law where the first value is negative, and no law at all where it is positive."""
    contract = load_contract(contract_path("peg"))
    layout, rng = RowLayout(contract), np.random.default_rng(0)
    observations = rng.normal(size=(COUNT, layout.observation_size))
    labels = np.clip(observations[:, 1:4] * 0.1, -0.24, 0.24)
    wild = observations[:, 0] > 0.5
    labels[wild] = rng.choice([-0.24, 0.24], size=(int(wild.sum()), 3))
    trained = train(contract, observations, labels, ENSEMBLE, seed=0)
    return {"contract": contract, "trained": trained, "observations": observations, "labels": labels, "wild": wild}


def experiences(material: dict[str, Any], *, by_policy: bool) -> list[Experience]:
    """Episodes of 10 ticks; those with a positive first value fail."""
    parts = np.split(np.arange(COUNT), EPISODES)
    made = []
    for i, part in enumerate(parts):
        observations = material["observations"][part].copy()
        observations[:, 0] = 2.0 if i % 2 else -2.0
        flags = np.full(len(part), by_policy)
        made.append(Experience(observations, material["labels"][part], flags, success=i % 2 == 0))
    return made


def fitted(
    material: dict[str, Any],
    rule: str,
    *,
    by_policy: bool = True,
    budget: float = 0.1,
    episodes: Any = None,
    settings: LimitSettings = QUICK,
) -> Any:
    return fit_limits(
        rule,
        material["contract"],
        material["trained"],
        material["observations"],
        material["labels"],
        episodes or experiences(material, by_policy=by_policy),
        budget=budget,
        seed=0,
        settings=settings,
    )


def scores(material: dict[str, Any], tensors: dict[str, Any], observations: Any) -> list[Any]:
    network, out = MlpEnsemble(material["trained"].tensors | tensors), np.zeros(3)
    return [network.act(observation, out, NEVER_NS) for observation in observations]


@pytest.mark.parametrize("rule", ROBOT_GATED)
def test_limits_come_back_as_the_supervisor_takes_them(rule: str, material: dict[str, Any]) -> None:
    tensors, limits = fitted(material, rule)
    taken = Limits.fitted(rule, limits)
    assert taken.ask.given() == limits["ask"]
    assert taken.back.given() == limits["back"]
    wanted = {
        "safe": (["deviation"], ["deviation"], 1),
        "lazy": (["deviation"], ["discrepancy"], 6),  # 0.3 s at 20 Hz
        "ensemble": (["doubt", "discrepancy"], ["doubt", "discrepancy"], 1),
        "thrifty": (["doubt", "risk"], ["risk", "discrepancy"], 1),
    }
    assert (list(limits["ask"]), list(limits["back"]), limits["back_ticks"]) == wanted[rule]
    assert limits["fit"]["labels"] == COUNT
    assert limits["fit"]["episodes"] == EPISODES
    again = fitted(material, rule)
    assert again[1] == limits
    assert all((again[0][name] == tensors[name]).all() for name in tensors)


@pytest.mark.parametrize("rule", ["safe", "lazy"])
def test_a_fifth_of_the_data_deviates_and_the_network_knows_where(rule: str, material: dict[str, Any]) -> None:
    tensors, limits = fitted(material, rule)
    assert limits["fit"]["deviating"] == pytest.approx(0.2, abs=0.01)
    wild = material["wild"]
    deviation = np.array([s.deviation for s in scores(material, tensors, material["observations"])])
    assert deviation[wild].mean() > deviation[~wild].mean() + 0.3
    assert limits["ask"]["deviation"] == 0.5


def test_lazy_gives_control_back_at_half_the_distance_at_which_the_policy_deviates(material: dict[str, Any]) -> None:
    alike = replace(QUICK, ensemble_share=QUICK.unsafe_share)
    _, ensemble = fitted(material, "ensemble", settings=alike)
    _, lazy = fitted(material, "lazy")
    assert lazy["back"]["discrepancy"] == pytest.approx(ensemble["ask"]["discrepancy"] / 2)


def test_ensemble_takes_the_same_limits_both_ways(material: dict[str, Any]) -> None:
    _, limits = fitted(material, "ensemble")
    assert limits["ask"] == limits["back"]
    doubt = np.array([s.doubt for s in scores(material, {}, material["observations"])])
    assert (doubt > limits["ask"]["doubt"]).mean() == pytest.approx(QUICK.ensemble_share, abs=0.01)


def test_thrifty_fits_its_limits_to_what_the_policy_met(material: dict[str, Any]) -> None:
    tensors, limits = fitted(material, "thrifty", budget=0.2)
    met = scores(material, tensors, np.concatenate([e.observations for e in experiences(material, by_policy=True)]))
    exceeded = [s.doubt > limits["ask"]["doubt"] or s.risk > limits["ask"]["risk"] for s in met]
    assert np.mean(exceeded) == pytest.approx(0.2, abs=0.02)
    assert np.mean([s.risk > limits["back"]["risk"] for s in met]) == pytest.approx(0.5, abs=0.02)


def test_thrifty_begins_with_the_numbers_of_its_source_before_the_policy_drove(material: dict[str, Any]) -> None:
    tensors, limits = fitted(material, "thrifty", by_policy=False)
    assert (limits["ask"]["risk"], limits["back"]["risk"]) == pytest.approx((0.52, 0.505))
    doubt = np.array([s.doubt for s in scores(material, tensors, material["observations"])])
    assert (doubt > limits["ask"]["doubt"]).mean() == pytest.approx(0.1, abs=0.01)


def test_risk_is_higher_where_episodes_failed(material: dict[str, Any]) -> None:
    tensors, _ = fitted(material, "thrifty")
    episodes = experiences(material, by_policy=True)
    risks = [np.mean([s.risk for s in scores(material, tensors, e.observations)]) for e in episodes]
    assert np.mean(risks[1::2]) > np.mean(risks[::2]) + 0.3


def test_episodes_without_any_success_are_risky(material: dict[str, Any]) -> None:
    failed = [replace(episode, success=False) for episode in experiences(material, by_policy=True)]
    tensors, _ = fitted(material, "thrifty", episodes=failed)
    assert np.mean([s.risk for s in scores(material, tensors, failed[0].observations)]) > 0.8


def test_doubt_of_a_person_is_the_mean_of_the_last_quarter_of_the_takeovers() -> None:
    assert human_doubt_limit([]) == {}
    assert human_doubt_limit([0.3])["doubt_limit"] == 0.3
    limits = human_doubt_limit([9.0] * 6 + [0.1, 0.3])
    assert (limits["rule"], limits["doubt_limit"], limits["fit"]) == ("hg", 0.2, {"takeovers": 8})


def test_limits_that_would_be_none_are_refused(material: dict[str, Any]) -> None:
    trained = replace(material["trained"], held_out=np.full_like(material["labels"], np.nan))
    with pytest.raises(DaggerError, match="limits: expected finite actions on every labelled frame"):
        fitted(material | {"trained": trained}, "ensemble")


def test_rule_that_asks_for_nothing_has_no_limits(material: dict[str, Any]) -> None:
    asking = "safe, lazy, ensemble, thrifty"
    with pytest.raises(DaggerError, match=rf"expected a rule that asks for help \({asking}\), got 'hg'"):
        fitted(material, "hg")
