"""Policies from outside: ONNX, torch, Stable-Baselines3, entry points, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import weak_policy
from dagger_ros.contract import NEVER_NS, Contract, DaggerError, Mode, RowLayout, Scores
from dagger_ros.control import ControlTick
from dagger_ros.policy import MlpEnsemble, load_policy
from dagger_ros.supervisor import Gate, make_rule

WEIGHT = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32) / 20
BIAS = np.array([0.01, -0.02, 0.03], np.float32)


def act(policy: Any, observation: Any) -> tuple[Any, Scores]:
    out = np.zeros(3)
    return out, policy.act(np.asarray(observation, float), out, NEVER_NS)


def random_observation(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=24)


# ONNX


def onnx_file(
    path: Path,
    *,
    inputs: int = 24,
    outputs: int = 3,
    batch: int | str = 1,
    kind: str = "FLOAT",
    more_outputs: bool = False,
    metadata: dict[str, str] | None = None,
    first: str = "Identity",
    outside: bool = False,
) -> Path:
    """A linear model, after an operation on its inputs."""
    onnx = pytest.importorskip("onnx", reason="needs the optional package onnx")
    pytest.importorskip("onnxruntime", reason="needs the optional package onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    number = getattr(TensorProto, kind)
    dtype = np.float32 if kind == "FLOAT" else np.float64
    weight = np.resize(WEIGHT, (inputs, outputs)).astype(dtype)
    nodes = [
        helper.make_node(first, ["observation"], ["values"]),
        helper.make_node("MatMul", ["values", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["action"]),
    ]
    named = [helper.make_tensor_value_info("action", number, [batch, outputs])]
    if more_outputs:
        named.append(helper.make_tensor_value_info("product", number, [batch, outputs]))
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("observation", number, [batch, inputs])],
        named,
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(np.resize(BIAS, outputs).astype(dtype), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path, save_as_external_data=outside, location="weights", size_threshold=0)
    return path


@pytest.mark.parametrize("batch", [1, "N"])
def test_onnx_model_gives_its_action_for_observations_in_the_contracts_units(
    peg: Contract, tmp_path: Path, batch: int | str
) -> None:
    _, policy = load_policy(onnx_file(tmp_path / "m.onnx", batch=batch), peg)
    observation = random_observation(1)
    action, scores = act(policy, observation)
    np.testing.assert_allclose(action, observation @ WEIGHT + BIAS, atol=1e-6)
    assert scores.given() == {"doubt": 0.0}


def test_policy_from_outside_says_what_it_is(peg: Contract, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "né w\n.onnx")
    about, _ = load_policy(str(path), peg)
    assert about.name == "n__w_"
    assert about.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (about.round, about.seed, about.trained_on) == (-1, -1, ())
    assert about.columns == RowLayout(peg).columns()
    assert about.actions == ("vx", "vy", "vz")
    assert about.contract_sha256 == peg.sha256
    assert about.training == {"source": str(path)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"inputs": 23}, r"one input of shape \(1, 24\) float32 .* got observation \[1, 23\] tensor\(float\)"),
        ({"outputs": 4}, r"one output of shape \(1, 3\) float32 .* got action \[1, 4\] tensor\(float\)"),
        ({"batch": 2}, r"one input of shape \(1, 24\).* got observation \[2, 24\]"),
        ({"kind": "DOUBLE"}, r"one input of shape \(1, 24\) float32 .*tensor\(double\)"),
        ({"more_outputs": True}, r"one output .* got action \[1, 3\] tensor\(float\), product"),
        ({"metadata": {"actions": "vy,vx,vz"}}, r"expected actions vx,vy,vz, .* the model says vy,vx,vz"),
        ({"metadata": {"columns": "a"}}, r"expected columns peg_in_hole.pose.position.x,.* the model says a"),
        ({"first": "Log"}, r"expected a finite action, and Scores, .* mend the model"),
    ],
)
def test_onnx_model_that_does_not_fit_is_refused_with_what_was_expected_and_found(
    peg: Contract, tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    if "first" in wrong:
        wrong = {"first": "Neg", "more_outputs": False} | wrong
        peg = peg.model_copy(
            update={"streams": {n: s.model_copy(update={"resolution": 1e-60}) for n, s in peg.streams.items()}}
        )
    with pytest.raises(DaggerError, match=message):
        load_policy(onnx_file(tmp_path / "m.onnx", **wrong), peg)


def test_names_in_the_metadata_that_are_the_contracts_are_taken(peg: Contract, tmp_path: Path) -> None:
    metadata = {"columns": ",".join(RowLayout(peg).columns()), "actions": "vx,vy,vz"}
    load_policy(onnx_file(tmp_path / "m.onnx", metadata=metadata), peg)


def test_nan_of_the_model_is_passed_on(peg: Contract, tmp_path: Path) -> None:
    _, policy = load_policy(onnx_file(tmp_path / "m.onnx", first="Log"), peg)
    action, _ = act(policy, -np.ones(24))
    assert np.isnan(action).all()


def test_files_that_are_no_models_are_refused_in_words(peg: Contract, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    pytest.importorskip("onnxruntime", reason="needs the optional package onnxruntime")
    with pytest.raises(DaggerError, match=r"text.onnx: expected an ONNX model with its weights in the same file"):
        load_policy(tmp_path / "text.onnx", peg)
    with pytest.raises(DaggerError, match=r"none.onnx: expected the file of a policy here; No such file"):
        load_policy(tmp_path / "none.onnx", peg)


def test_weights_outside_of_the_file_are_refused_since_no_hash_covers_them(
    peg: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = onnx_file(Path("m.onnx"), outside=True)
    assert Path("weights").is_file()
    with pytest.raises(DaggerError, match=r"m.onnx: expected an ONNX model with its weights in the same file"):
        load_policy(path, peg)


def test_onnxruntime_that_takes_weights_from_elsewhere_is_refused(
    peg: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = onnx_file(tmp_path / "m.onnx")
    monkeypatch.setattr("onnxruntime.__version__", "1.22.1")
    with pytest.raises(DaggerError, match=r"expected the package onnxruntime 1.23 or newer"):
        load_policy(path, peg)


@pytest.mark.parametrize(("source", "package"), [("m.onnx", "onnxruntime"), ("sb3:PPO:m.zip", "stable-baselines3")])
def test_without_the_package_it_says_which(
    peg: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, package: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(source.rpartition(":")[2]).write_bytes(b"something")
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)
    with pytest.raises(
        DaggerError, match=f"expected the package {package} to run this policy, and it is not installed"
    ):
        load_policy(source, peg)


# torch


def linear() -> Any:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(24, 3)
    with torch.no_grad():
        model.weight[:] = torch.from_numpy(WEIGHT.T)
        model.bias[:] = torch.from_numpy(BIAS)
    return model


def torch_file(path: Path, device: str = "cpu") -> Path:
    """The linear model as TorchScript or as an exported program, made on a device."""
    model = linear().to(device)
    import torch

    example = torch.zeros(1, 24, device=device)
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(model, (example,)), path)
    else:
        torch.jit.trace(model, example).save(str(path))
    return path


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["m.pt", "m.ts", "m.pt2"])
@pytest.mark.parametrize(("made_on", "runs_on"), [("cpu", "cpu"), ("cpu", "cuda"), ("cuda", "cuda"), ("cuda", "cpu")])
def test_torch_models_give_their_action(peg: Contract, tmp_path: Path, name: str, made_on: str, runs_on: str) -> None:
    torch = pytest.importorskip("torch")
    if "cuda" in (made_on, runs_on) and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    torch_file(tmp_path / name, made_on)
    device = "cuda:" if runs_on == "cuda" else ""
    about, policy = load_policy(f"torch:{device}{tmp_path / name}", peg)
    observation = random_observation(2)
    action, scores = act(policy, observation)
    np.testing.assert_allclose(action, observation @ WEIGHT + BIAS, atol=1e-6)
    assert scores.given() == {"doubt": 0.0}
    assert about.name == f"{device}m"
    assert about.weights_sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torch_files_of_another_kind_are_refused_in_words(peg: Contract, tmp_path: Path) -> None:
    model = linear()
    import torch

    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "text.pt2").write_text("no model")
    torch.jit.trace(torch.nn.Linear(24, 4), torch.zeros(1, 24)).save(str(tmp_path / "wide.pt"))
    torch.jit.trace(torch.nn.Linear(23, 3), torch.zeros(1, 23)).save(str(tmp_path / "narrow.pt"))
    for name, message in (
        ("weights.pt", r"expected TorchScript \(.pt, .ts\), or torch.export \(.pt2\) .*, not a state_dict"),
        ("text.pt2", r"expected what torch.jit.save or torch.export.save wrote"),
        ("wide.pt", r"expected actions of shape \(1, 3\), got \(1, 4\)"),
        ("narrow.pt", r"the policy raised RuntimeError"),
        ("none.pt", r"none.pt: expected the file of a policy here"),
    ):
        with pytest.raises(DaggerError, match=message):
            load_policy(f"torch:{tmp_path / name}", peg)


def test_policy_on_a_graphics_card_says_so_by_its_name(
    peg: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def torch_model(path: Path, content: bytes, device: str) -> Any:
        asked.append(device)
        return lambda observation: np.zeros((1, 3), np.float32)

    monkeypatch.setattr("dagger_ros.policy.outside._torch", torch_model)
    (tmp_path / "m.pt").write_bytes(b"model")
    names = [load_policy(f"torch:{device}{tmp_path / 'm.pt'}", peg)[0].name for device in ("", "cuda:")]
    assert (names, asked) == (["m", "cuda:m"], ["cpu", "cuda"])


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_cuda_that_is_not_there_is_said(peg: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = torch_file(tmp_path / "m.pt")
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        DaggerError, match=rf"expected a CUDA device that torch .* can use, found none; .* torch:{path}"
    ):
        load_policy(f"torch:cuda:{path}", peg)


# What runs code


@pytest.mark.parametrize(
    ("name", "better"), [("m.pt", "torch:"), ("m.ts", "torch:"), ("m.pt2", "torch:"), ("m.zip", "sb3:PPO:")]
)
def test_file_that_can_run_code_is_not_loaded_before_somebody_says_so(
    peg: Contract, tmp_path: Path, name: str, better: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"anything")
    with pytest.raises(DaggerError, match=f"can run code that is in it; if you trust .* with {better}{path}"):
        load_policy(path, peg)


@pytest.mark.parametrize("source", ["torch:m.pt", "sb3:PPO:m.zip", "os:system"])
def test_where_no_code_may_run_only_what_has_none_is_loaded(
    peg: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m.pt", "m.zip"):
        Path(name).write_bytes(b"anything")
    with pytest.raises(DaggerError, match="expected what runs no code here"):
        load_policy(source, peg, run_code=False)
    load_policy(weak_policy("peg", tmp_path / "policy"), peg, run_code=False)
    load_policy(onnx_file(tmp_path / "m.onnx"), peg, run_code=False)


# Stable-Baselines3


class StandIn:
    """What our side calls of a model of Stable-Baselines3."""

    observation_space = SimpleNamespace(shape=(24,))

    def predict(self, observation: Any, *, deterministic: bool) -> tuple[Any, None]:
        assert deterministic
        return observation @ WEIGHT + BIAS, None


def test_sb3_model_gives_its_deterministic_action(
    peg: Contract, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load(file: Any, device: str) -> StandIn:
        asked.append((file.read(), device))
        return StandIn()

    module = ModuleType("stable_baselines3")
    module.PPO = SimpleNamespace(load=load)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stable_baselines3", module)
    (tmp_path / "m.zip").write_bytes(b"zip")
    _, policy = load_policy(f"sb3:ppo:{tmp_path / 'm.zip'}", peg)
    np.testing.assert_allclose(act(policy, random_observation(3))[0], random_observation(3) @ WEIGHT + BIAS, atol=1e-6)
    assert asked == [(b"zip", "cpu")]
    monkeypatch.setattr(StandIn, "observation_space", SimpleNamespace(shape=(9,)))
    with pytest.raises(DaggerError, match=r"expected observations of shape \(24,\) for this contract, got \(9,\)"):
        load_policy(f"sb3:PPO:{tmp_path / 'm.zip'}", peg)


def test_real_sb3_model_is_loaded(peg: Contract, tmp_path: Path) -> None:
    sb3 = pytest.importorskip("stable_baselines3", reason="needs the optional package stable-baselines3")
    import gymnasium

    class Nothing(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (24,))
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,))

    model = sb3.PPO("MlpPolicy", Nothing(), device="cpu", n_steps=8, batch_size=8)
    model.save(tmp_path / "m.zip")
    _, policy = load_policy(f"sb3:PPO:{tmp_path / 'm.zip'}", peg)
    observation = random_observation(4).astype(np.float32)
    np.testing.assert_allclose(act(policy, observation)[0], model.predict(observation, deterministic=True)[0])


@pytest.mark.parametrize("source", ["sb3:m.zip", "sb3:DQN:m.zip", "sb3:PPO:"])
def test_sb3_needs_the_name_of_the_algorithm(peg: Contract, source: str) -> None:
    with pytest.raises(DaggerError, match=r"expected sb3:ALGORITHM:FILE.zip with one of A2C, DDPG, PPO, SAC, TD3"):
        load_policy(source, peg)


# Entry points

MODULE = """
import numpy as np
from dagger_ros.contract import Scores

class Own:
    def __init__(self):
        self.episodes = 0
    def start_episode(self):
        self.episodes += 1
    def act(self, observation, out, stamp_ns):
        if observation[0] > 100:
            raise ValueError("too far")
        out[:] = observation[:3]
        return Scores(doubt=0.25, novelty=2.0)

class Model:
    def predict(self, observations):
        assert observations.dtype == np.float32
        return 2 * observations[:, 3:6]

class Wide:
    def predict(self, observations):
        return observations

class Silent(Own):
    def act(self, observation, out, stamp_ns):
        out[:] = 0.0

class Counting(Own):
    answers = 0
    def act(self, observation, out, stamp_ns):
        self.answers += 1
        out[:] = self.answers
        return Scores()

def own(contract):
    assert contract.name == "peg"
    return Own()

def broken(contract):
    raise KeyError("weights")

model, wide, silent, counting, nothing = (
    lambda contract, kind=kind: kind() for kind in (Model, Wide, Silent, Counting, object)
)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "outside_fixture.py"
    path.write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "outside_fixture", raising=False)
    return path


def test_entry_point_may_be_a_policy_with_memory_and_scores(peg: Contract, module: Path) -> None:
    about, policy = load_policy("outside_fixture:own", peg)
    action, scores = act(policy, np.arange(24.0))
    assert action.tolist() == [0.0, 1.0, 2.0]
    assert scores.given() == {"doubt": 0.25, "novelty": 2.0}
    assert about.name == "own"
    assert about.weights_sha256 == hashlib.sha256(module.read_bytes()).hexdigest()


def test_entry_point_may_be_a_model_that_predicts(peg: Contract, module: Path) -> None:
    _, policy = load_policy("outside_fixture:model", peg)
    action, scores = act(policy, np.arange(24.0))
    assert action.tolist() == [6.0, 8.0, 10.0]
    assert scores.given() == {"doubt": 0.0}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("outside_fixture:broken", r"a function broken\(contract\) in a Python file .* KeyError: 'weights'"),
        ("outside_fixture:absent", r"AttributeError"),
        ("no_such_module:make", r"can be imported as no_such_module; ModuleNotFoundError"),
        ("outside_fixture:nothing", r"expected an object with start_episode\(\) and act.*got object"),
        ("outside_fixture:wide", r"expected actions of shape \(1, 3\), got \(1, 24\)"),
        ("outside_fixture:silent", r"expected a finite action, and Scores, .* and None"),
        ("outside fixture:make", r"expected a policy as FOLDER of a checkpoint, FILE.onnx"),
        ("nowhere", r"nowhere: expected a policy here"),
    ],
)
def test_entry_point_that_gives_no_policy_is_refused_in_words(
    peg: Contract, module: Path, source: str, message: str
) -> None:
    with pytest.raises(DaggerError, match=message):
        load_policy(source, peg)


def test_policy_has_answered_several_times_before_it_drives(peg: Contract, module: Path) -> None:
    """The first answers of compiled models take long."""
    _, policy = load_policy("outside_fixture:counting", peg)
    assert act(policy, np.zeros(24))[0].min() > 3


def test_what_a_policy_raises_later_is_a_message_with_its_source(peg: Contract, module: Path) -> None:
    _, policy = load_policy("outside_fixture:own", peg)
    with pytest.raises(DaggerError, match=r"outside_fixture:own: .* raised ValueError: too far"):
        act(policy, np.full(24, 101.0))


def test_observation_that_is_not_finite_gives_nan_without_asking_the_policy(peg: Contract, module: Path) -> None:
    _, policy = load_policy("outside_fixture:own", peg)
    observation = np.zeros(24)
    observation[20] = np.inf
    action, _ = act(policy, observation)
    assert np.isnan(action).all()


# In use


def test_folder_of_a_checkpoint_is_loaded_as_before(peg: Contract, tmp_path: Path) -> None:
    about, policy = load_policy(weak_policy("peg", tmp_path / "policy", seed=4), peg)
    assert about.name == "pi_004"
    assert isinstance(policy, MlpEnsemble)


def test_policy_from_outside_drives_under_the_supervisor(peg: Contract, module: Path) -> None:
    layout = RowLayout(peg)
    gate = Gate(peg, make_rule("hg", round_index=1), auto_arm=True, needs_expert=False)
    control = ControlTick(layout, gate, None, load_policy("outside_fixture:own", peg))
    control.start_episode(0)
    rows = layout.new(3)
    for i, row in enumerate(rows):
        row["time_ns"] = row["monotonic_ns"] = i * peg.timing.period_ns
        row["stamp_ns"] = row["receive_ns"] = row["time_ns"]
        row["observation"], row["privileged"] = 0.01, 0.0
        row["observation"][3:6] = 0.4, 0.0, 0.2  # inside the workspace
        control(row, None)
    assert rows["mode"].tolist() == [Mode.POLICY] * 3
    assert rows["policy"].tolist() == [b"own"] * 3
