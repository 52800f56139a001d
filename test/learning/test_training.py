"""What can be chosen about a training, and what comes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dagger_ros.contract import NEVER_NS, Contract, DaggerError, RowLayout
from dagger_ros.policy import Checkpoint, MlpEnsemble

torch = pytest.importorskip("torch")
from dagger_ros.learning import Kind, Origins, TrainingSettings, train
from dagger_ros.learning.batches import Batches, chunk_targets, learned_frames
from dagger_ros.learning.descent import LeastSquares
from dagger_ros.learning.network import Perceptrons, minimise

pytestmark = pytest.mark.torch
QUICK = TrainingSettings(members=2, hidden=(32,), steps=200, batch=32, bootstrap=False, input_noise=0.0)


def data(contract: Contract, count: int = 200, seed: int = 0) -> tuple[Any, Any]:
    """Labels that are a linear law of the observations."""
    layout = RowLayout(contract)
    observations = np.random.default_rng(seed).normal(size=(count, layout.observation_size))
    law = np.random.default_rng(7).normal(size=(layout.observation_size, layout.action_size)) * 0.02
    return observations, observations @ law


def origins(kinds: list[Kind], *, follows: bool = True, before_takeover_s: Any = np.inf) -> Origins:
    count = len(kinds)
    return Origins(np.full(count, follows), np.array(kinds), np.broadcast_to(before_takeover_s, count).astype(float))


def actions_of(tensors: dict[str, Any], observations: Any) -> Any:
    network = MlpEnsemble(tensors)
    result = np.zeros((len(observations), network.action_size))
    for observation, out in zip(observations, result, strict=True):
        network.act(observation, out, NEVER_NS)
    return result


def with_validation(contract: Contract) -> Contract:
    content = contract.model_dump(mode="json", by_alias=True)
    content["splits"] = {"train": 0.8, "validation": 0.2, "stress": 0.0}
    return Contract.model_validate(content)


def about_of(trained: Any, sha256: str = "a" * 64) -> Checkpoint:
    return Checkpoint("pi_000", 0, "", 0, (), (), (), trained.about, weights_sha256=sha256)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("products", ["blas", "onednn"])
def test_gradients_that_are_written_out_are_those_of_autograd(*, weighted: bool, products: str) -> None:
    generator = torch.Generator().manual_seed(0)
    networks = [Perceptrons(3, (5, 16, 9, 2), torch.Generator().manual_seed(1)) for _ in range(2)]
    inputs, targets = torch.randn(3, 8, 5, generator=generator), torch.randn(3, 8, 2, generator=generator)
    weights = torch.rand(3, 8, 2, generator=generator) if weighted else torch.ones(3, 8, 2)
    fit = LeastSquares(
        networks[0], 8, steps=40, learning_rate=0.01, weight_decay=0.1, weighted=weighted, products=products
    )
    fit.inputs.copy_(inputs)
    fit.targets.copy_(targets)
    if fit.weights is not None:
        fit.weights.copy_(weights)
    losses: list[Any] = []

    def loss() -> Any:
        losses.append((weights * (networks[1](inputs) - targets) ** 2).mean(dim=(1, 2)).sum())
        return losses[-1]

    minimise(networks[1], loss, steps=40, learning_rate=0.01, weight_decay=0.1)
    for _ in range(40):
        fit.step()
    assert fit.loss == pytest.approx(float(losses[-1].detach()) / 3, rel=1e-3)
    assert fit.loss < 0.7 * float(losses[0].detach()) / 3
    for mine, theirs in zip(networks[0].parameters, networks[1].parameters, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_training_stops_where_validation_gets_no_better_and_keeps_the_best(peg: Contract) -> None:
    """Labels without a law: the more of them is learned by heart, the worse everything else."""
    contract, rng = with_validation(peg), np.random.default_rng(0)
    observations, validation = data(peg, 60), data(peg, 60, seed=1)
    labels = rng.normal(0.0, 0.1, (60, 3))
    noise = validation[0], rng.normal(0.0, 0.1, (60, 3))
    settings = replace(QUICK, steps=1000, validation_patience=3, evaluate_every=10)
    taken: list[int] = []
    trained = train(contract, observations[0], labels, settings, seed=0, validation=noise, progress=taken.append)
    about = trained.about
    assert about["steps_taken"] == about["best_step"] + 30 == sum(taken) < 1000
    assert about["validation_frames"] == 60
    to_the_end = train(contract, observations[0], labels, replace(settings, validation_patience=0), seed=0)
    half = 0.24
    errors = [(((actions_of(t.tensors, noise[0]) - noise[1]) / half) ** 2).mean() for t in (trained, to_the_end)]
    assert errors[0] == pytest.approx(about["validation_loss"], rel=1e-4)
    assert errors[1] > 1.2 * errors[0]
    # The kept weights are those of that step: as many steps of the same schedule.
    again = train(contract, observations[0], labels, settings, seed=0, validation=noise)
    assert all((again.tensors[name] == trained.tensors[name]).all() for name in trained.tensors)


def test_validation_alone_changes_nothing_and_is_told(peg: Contract) -> None:
    contract = with_validation(peg)
    without = train(contract, *data(peg), QUICK, seed=0)
    trained = train(contract, *data(peg), QUICK, seed=0, validation=data(peg, seed=1))
    assert all((without.tensors[name] == trained.tensors[name]).all() for name in trained.tensors)
    assert without.about["validation_loss"] is None
    assert 0 < trained.about["validation_loss"] < 1
    assert trained.about["steps_taken"] == trained.about["best_step"] == QUICK.steps


def test_stopping_by_validation_needs_a_split_and_waits_for_its_first_frame(peg: Contract) -> None:
    settings = replace(QUICK, validation_patience=2)
    with pytest.raises(DaggerError, match=r"validation_patience: expected a contract with a validation split"):
        train(peg, *data(peg), settings, seed=0, validation=data(peg, seed=1))
    observations, labels = data(peg)
    nothing = observations[:0], labels[:0]
    trained = train(with_validation(peg), observations, labels, settings, seed=0, validation=nothing)
    assert trained.about["steps_taken"] == settings.steps
    assert trained.about["validation_loss"] is None


def test_warm_start_goes_on_from_the_policy_before_whatever_the_new_data_are_scaled_by(peg: Contract) -> None:
    observations, labels = data(peg)
    first = train(peg, observations, labels, QUICK, seed=0)
    more = observations * 3.0 + 0.5, labels
    settings = replace(QUICK, start="previous", steps=1, learning_rate=1e-9)
    warm = train(peg, *more, settings, seed=5, previous=(about_of(first), first.tensors))
    np.testing.assert_allclose(
        actions_of(warm.tensors, observations), actions_of(first.tensors, observations), atol=1e-5
    )
    assert warm.about["started_from"] == "a" * 64
    cold = train(peg, *more, settings, seed=5)
    assert cold.about["started_from"] == ""
    assert np.abs(actions_of(cold.tensors, observations) - actions_of(first.tensors, observations)).max() > 0.01
    scratch = replace(settings, start="scratch")
    same = train(peg, *more, scratch, seed=5, previous=(about_of(first), first.tensors))
    assert all((same.tensors[name] == cold.tensors[name]).all() for name in cold.tensors)


@pytest.mark.parametrize("other", [{"members": 3}, {"hidden": (16,)}, {"hidden": (32, 32)}])
def test_warm_start_from_other_layers_is_refused(peg: Contract, other: dict[str, Any]) -> None:
    first = train(peg, *data(peg), replace(QUICK, steps=1, **other), seed=0)
    with pytest.raises(DaggerError, match=r"start: expected pi_000, .* to have weights \[\(2, 24, 32\), "):
        train(peg, *data(peg), replace(QUICK, start="previous"), seed=0, previous=(about_of(first), first.tensors))


def test_targets_of_a_chunk_are_the_labels_that_follow_without_a_break() -> None:
    labels = np.arange(6.0)[:, None] * np.ones(2)
    follows = np.array([False, True, True, False, True, True])
    targets, there = chunk_targets(labels, follows, 4)
    assert there.astype(int).tolist() == [
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
        [1, 1, 1, 0],
        [1, 1, 0, 0],
        [1, 0, 0, 0],
    ]
    expected = np.arange(6)[:, None] + np.arange(4)
    assert (targets[there] == expected[there][:, None]).all()
    assert not targets[~there].any()
    assert chunk_targets(labels[:1], follows[:1], 16)[1].sum() == 1


def test_network_gives_the_actions_of_the_next_ticks(peg: Contract) -> None:
    """An observation says when it is, and the label is a wave of that."""
    phase = np.linspace(0, 6 * np.pi, 240)
    observations = np.zeros((240, 24))
    observations[:, 0], observations[:, 1] = np.sin(phase), np.cos(phase)
    labels = 0.2 * np.sin(phase[:, None] + np.arange(3))
    settings = replace(QUICK, horizon=4, steps=800, hidden=(64,))
    trained = train(peg, observations, labels, settings, seed=0, origins=origins([Kind.DEMONSTRATION] * 240))
    network, out = MlpEnsemble(trained.tensors), np.zeros(3)
    assert network.horizon == 4
    last = trained.tensors["layer1.weight"]
    for k in range(4):
        part = {"layer1.weight": last[..., 3 * k : 3 * k + 3]}
        part["layer1.bias"] = trained.tensors["layer1.bias"][..., 3 * k : 3 * k + 3]
        found = actions_of(trained.tensors | part, observations[:200])
        assert np.sqrt(((found - labels[k : 200 + k]) ** 2).mean()) < 0.02, k
    network.act(observations[5], out, NEVER_NS)
    np.testing.assert_allclose(out, trained.held_out[5], atol=1e-5)


def test_actions_of_ticks_without_a_label_are_not_learned(peg: Contract) -> None:
    settings = replace(QUICK, horizon=2, weight_decay=0.0)
    alone = origins([Kind.DEMONSTRATION] * 200, follows=False)
    trained = train(peg, *data(peg), settings, seed=3, origins=alone)
    first = Perceptrons(2, (24, 32, 6), torch.Generator().manual_seed(3)).tensors()["layer1.weight"]
    assert (trained.tensors["layer1.weight"][..., 3:] == first[..., 3:]).all()
    assert (trained.tensors["layer1.weight"][..., :3] != first[..., :3]).any()


def test_correction_weighs_as_much_as_it_is_told(peg: Contract) -> None:
    """Where a correction and a demonstration say different things of one state."""
    observations, labels = np.zeros((40, 24)), np.full((40, 3), -0.1)
    labels[:10] = 0.1
    kinds = origins([Kind.CORRECTION] * 10 + [Kind.DEMONSTRATION] * 30)
    for weight, share in ((1.0, 0.25), (3.0, 0.5), (27.0, 0.9)):
        settings = replace(QUICK, correction_weight=weight, steps=400)
        found = actions_of(train(peg, observations, labels, settings, seed=0, origins=kinds).tensors, observations[:1])
        np.testing.assert_allclose(found, share * 0.1 - (1 - share) * 0.1, atol=0.015)


@pytest.mark.parametrize("bootstrap", [False, True])
def test_half_of_each_batch_are_corrections_where_asked(*, bootstrap: bool) -> None:
    settings = replace(QUICK, batches="iwr", batch=9, bootstrap=bootstrap)
    kinds = origins([Kind.DEMONSTRATION] * 50 + [Kind.CORRECTION] * 5 + [Kind.SHADOW] * 20)
    learned, first = learned_frames(75, kinds, settings)
    assert first == 5
    assert sorted(learned.tolist()) == list(range(75))
    marks = torch.tensor(kinds.kind[learned] == Kind.CORRECTION, dtype=torch.float32)[:, None]
    batches = Batches(
        marks,
        marks,
        None,
        first=first,
        noise=torch.zeros(1),
        settings=settings,
        generator=torch.Generator().manual_seed(0),
    )
    fit = LeastSquares(
        Perceptrons(2, (1, 4, 1), torch.Generator()),
        9,
        steps=1,
        learning_rate=0.1,
        weight_decay=0.0,
        weighted=False,
        products="blas",
    )
    for _ in range(20):
        batches.fill(fit)
        assert fit.inputs.sum(dim=(1, 2)).tolist() == [4, 4]
        assert (fit.inputs == fit.targets).all()


@pytest.mark.parametrize("kind", [Kind.DEMONSTRATION, Kind.CORRECTION])
def test_batches_are_uniform_where_there_are_no_corrections_or_nothing_else(peg: Contract, kind: Kind) -> None:
    uniform = train(peg, *data(peg), QUICK, seed=0)
    halves = train(peg, *data(peg), replace(QUICK, batches="iwr"), seed=0, origins=origins([kind] * 200))
    assert all((uniform.tensors[name] == halves.tensors[name]).all() for name in uniform.tensors)


def test_only_what_the_policy_drove_shortly_before_a_takeover_is_left_out(peg: Contract) -> None:
    before_s = np.full(200, np.inf)
    before_s[:4] = 0.49, 0.5, 0.51, 0.2
    kinds = origins([Kind.SHADOW] * 3 + [Kind.CORRECTION] * 50 + [Kind.SHADOW] * 147, before_takeover_s=before_s)
    settings = replace(QUICK, leave_out_before_takeover_s=0.5)
    learned, _ = learned_frames(200, kinds, settings)
    assert learned.tolist() == list(range(2, 200))
    observations, labels = data(peg)
    trained = train(peg, observations, labels, settings, seed=0, origins=kinds)
    rest = train(peg, observations[2:], labels[2:], QUICK, seed=0)
    assert all((trained.tensors[name] == rest.tensors[name]).all() for name in rest.tensors)
    assert trained.held_out.shape == labels.shape
    assert trained.about["frames"] == {
        "learned": 198,
        "left_out": 2,
        "demonstration": 0,
        "correction": 50,
        "shadow": 148,
    }
    all_before = origins([Kind.SHADOW] * 200, before_takeover_s=0.1)
    with pytest.raises(DaggerError, match=r"leave_out_before_takeover_s: expected to leave some frame to learn from"):
        train(peg, observations, labels, settings, seed=0, origins=all_before)


@pytest.mark.parametrize(
    "settings",
    [{"horizon": 2}, {"correction_weight": 2.0}, {"batches": "iwr"}, {"leave_out_before_takeover_s": 0.1}],
)
def test_settings_that_depend_on_origins_need_them(peg: Contract, settings: dict[str, Any]) -> None:
    with pytest.raises(DaggerError, match=f"{next(iter(settings))}: expected to be told where the frames come from"):
        train(peg, *data(peg), replace(QUICK, **settings), seed=0)


def test_same_seed_and_data_give_the_same_weights_with_everything_chosen(peg: Contract) -> None:
    contract = with_validation(peg)
    kinds = origins([Kind.DEMONSTRATION] * 100 + [Kind.CORRECTION] * 50 + [Kind.SHADOW] * 50)
    first = train(peg, *data(peg), replace(QUICK, horizon=3, bootstrap=True), seed=0, origins=kinds)
    settings = TrainingSettings(
        members=2,
        hidden=(32,),
        steps=60,
        batch=32,
        start="previous",
        validation_patience=2,
        evaluate_every=20,
        horizon=3,
        correction_weight=2.0,
        batches="iwr",
        leave_out_before_takeover_s=0.5,
        products="onednn",
    )
    results = [
        train(
            contract,
            *data(peg),
            settings,
            seed=seed,
            origins=kinds,
            validation=data(peg, 50, seed=1),
            previous=(about_of(first), first.tensors),
        )
        for seed in (3, 3, 4)
    ]
    same, again, other = (r.tensors for r in results)
    assert all((same[name] == again[name]).all() for name in same)
    assert any((same[name] != other[name]).any() for name in same)
    assert results[0].about == results[1].about


def test_cuda_that_is_not_there_is_said(peg: Contract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DaggerError, match=r"device: expected a CUDA device that torch .* can use, found none"):
        train(peg, *data(peg), replace(QUICK, device="cuda"), seed=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_learns_the_same_law(peg: Contract) -> None:
    observations, labels = data(peg)
    trained = train(peg, observations, labels, replace(QUICK, device="cuda", bootstrap=True), seed=0)
    again = train(peg, observations, labels, replace(QUICK, device="cuda", bootstrap=True), seed=0)
    assert all((again.tensors[name] == trained.tensors[name]).all() for name in trained.tensors)
    assert ((actions_of(trained.tensors, observations) - labels) ** 2).mean() < 0.3 * labels.var()
