"""The one way to get a policy from wherever it comes: a checkpoint of ours, or a model that others trained.

| source | what it is | what loading it may do |
|---|---|---|
| `FOLDER` | a checkpoint: `policy.json`, `weights.safetensors` | reads numbers |
| `FILE.onnx` | ONNX, run by onnxruntime on one thread of the CPU | reads a graph of known operations |
| `torch:FILE.pt`, `.ts`, `.pt2` | TorchScript, or what `torch.export.save` wrote | runs code of the file |
| `torch:cuda:FILE.pt`, ... | the same on a graphics card | runs code of the file |
| `sb3:ALGORITHM:FILE.zip` | a model of Stable-Baselines3 | runs code of the file |
| `MODULE:FACTORY` | `FACTORY(contract)` of an installed Python module | runs the module |

A prefix is an explicit act: such files hold code or pickled objects, so that only one from somebody you trust may be
loaded. The models take observations (1, O) float32 in the contract's order and units, not normalised, and give
actions (1, A) in the action's units.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import NEVER_NS, Contract, DaggerError, RowLayout, Scores
from dagger_ros.policy.base import Picture, Policy
from dagger_ros.policy.checkpoint import Checkpoint, load_checkpoint
from dagger_ros.policy.mlp import Array

__all__ = ["FORMS", "load_policy", "need_cuda"]

FORMS = "FOLDER of a checkpoint, FILE.onnx, torch:FILE.pt, torch:cuda:FILE.pt, sb3:ALGORITHM:FILE.zip or MODULE:FACTORY"

_Function = Callable[[Array], Any]
"""Observations (1, O) float32 to actions (1, A)."""

_Propose = Callable[[Array, Array, int], Scores]
"""As `Policy.act`."""

_Look = Callable[[str, Picture, int], object]
"""As `SeeingPolicy.see`."""

_TORCHSCRIPT, _EXPORTED = (".pt", ".ts"), ".pt2"
_ON_CARD = "cuda:"  # its numbers differ a little, so its name does too
# Those of Stable-Baselines3 whose actions are numbers.
_ALGORITHMS = ("A2C", "DDPG", "PPO", "SAC", "TD3")
_LONGEST_NAME = 32  # of the row's field
# Answers before it drives, since the first ones take long: TorchScript compiles in the second, too.
_WARM = 5
_ONNXRUNTIME = (1, 23)  # 1.20 looks for weights in the working folder, whatever it is told


def load_policy(
    source: str | Path, contract: Contract, *, run_code: bool = True, pictures: bool = False
) -> tuple[Checkpoint, Policy]:
    """Loads a policy and checks that it fits a contract.

    The scores of one from outside: it is an ensemble of one, whose doubt is 0 by definition, so that no limit on doubt
    stops it; nothing else is known (NaN), so that it drives under no rule that asks by novelty, deviation or risk.
    Where the observation is not finite, its actions are NaN.

    Args:
        source: One of `FORMS`.
        contract: What it is to be used under.
        run_code: Sources that may run code are allowed; False where the source comes from somebody else than the user.
        pictures: Pictures will be shown to a `SeeingPolicy`; False: one is refused.

    Returns:
        What it is, and itself. `weights_sha256` of one from outside is the hash of the file, or of the module's source.

    Raises:
        DaggerError: If it is missing, damaged, of other shapes, needs a package that is not there, or does not give a
            finite action for a small observation.
    """
    text = str(source)
    prefix, _, rest = text.partition(":")
    path = Path(text)
    if path.is_dir() or (not rest and path.suffix not in (".onnx", *_TORCHSCRIPT, _EXPORTED, ".zip")):
        return load_checkpoint(path, contract)
    layout = RowLayout(contract)
    if path.suffix == ".onnx":
        content = _read(path)
        return _checked(_proposer(text, _onnx(path, content, layout), layout), path.stem, content, layout)
    if not rest or path.is_file():
        better = f"sb3:PPO:{text}" if path.suffix == ".zip" else f"torch:{text}"
        raise DaggerError(
            f"{text}: loading such a file can run code that is in it; if you trust who made it, say so with {better}. "
            "A model as FILE.onnx needs no trust"
        )
    if not run_code:
        raise DaggerError(f"{text}: expected what runs no code here: FOLDER of a checkpoint or FILE.onnx")
    if prefix == "torch":
        on_card = rest.startswith(_ON_CARD)
        path = Path(rest.removeprefix(_ON_CARD))
        content, name = _read(path), f"{_ON_CARD if on_card else ''}{path.stem}"
        function = _torch(path, content, "cuda" if on_card else "cpu")
        return _checked(_proposer(text, function, layout), name, content, layout)
    if prefix == "sb3":
        algorithm, _, name = rest.partition(":")
        if algorithm.upper() not in _ALGORITHMS or not name:
            raise DaggerError(f"{text}: expected sb3:ALGORITHM:FILE.zip with one of {', '.join(_ALGORITHMS)}")
        path = Path(name)
        content = _read(path)
        return _checked(
            _proposer(text, _sb3(path, content, algorithm.upper(), layout), layout), path.stem, content, layout
        )
    if re.fullmatch(r"[\w.]+:\w+", text):
        content, foreign = _made(text, layout)
        if foreign.cameras and not pictures:
            raise DaggerError(
                f"{text}: expected a policy that acts on numbers, since only the policy node shows pictures; "
                f"it wants those of {', '.join(foreign.cameras)}"
            )
        return _checked(foreign, rest, content, layout)
    raise DaggerError(f"{text}: expected a policy as {FORMS}")


def need_cuda(what: str, instead: str) -> None:
    """Does nothing where there is a graphics card for torch.

    Args:
        what: It is needed for.
        instead: What needs none.

    Raises:
        DaggerError: If there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise DaggerError(
            f"{what}: expected a CUDA device that torch {torch.__version__} can use, found none; take {instead}, or "
            "install a torch with CUDA (make env TORCH=...)"
        )


@dataclass(frozen=True)
class _Foreign:
    """A policy whose code is not ours: what it raises becomes a message.

    Args:
        source: As given.
        start: Called at the start of an episode.
        propose: As `Policy.act`, for observations that are finite.
        cameras: That it wants pictures of.
        look: As `SeeingPolicy.see`.
    """

    source: str
    start: Callable[[], object]
    propose: _Propose
    cameras: tuple[str, ...] = ()
    look: _Look | None = None

    def start_episode(self) -> None:
        self._call(self.start)

    def see(self, camera: str, picture: Picture, stamp_ns: int) -> None:
        if self.look is not None:
            self._call(self.look, camera, picture, stamp_ns)

    def act(self, observation: Array, out: Array, stamp_ns: int) -> Scores:
        if not np.isfinite(observation).all():
            out[:] = np.nan
            return Scores(doubt=0.0)
        scores: Scores = self._call(self.propose, observation, out, stamp_ns)
        return scores

    def _call(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except DaggerError:
            raise
        except Exception as error:  # a boundary: anything may come
            raise DaggerError(
                f"{self.source}: expected an action, but the policy raised {type(error).__name__}: {error}"
            ) from error


def _checked(policy: _Foreign, name: str, content: bytes, layout: RowLayout) -> tuple[Checkpoint, Policy]:
    """A policy that has answered once, and what it is."""
    policy.start_episode()
    for wanted in policy.cameras:
        camera = layout.contract.cameras[wanted]
        blank = np.zeros((camera.height, camera.width, 3), np.uint8)
        blank.setflags(write=False)
        policy.see(wanted, blank, NEVER_NS)
    answer = np.full(layout.action_size, np.nan)
    for _ in range(_WARM):
        scores = policy.act(layout.resolution(), answer, NEVER_NS)
    if not np.isfinite(answer).all() or not isinstance(scores, Scores):
        raise DaggerError(
            f"{policy.source}: expected a finite action, and Scores, for an observation of the contract's resolutions, "
            f"got {answer.tolist()} and {scores}; mend the model or its inputs"
        )
    policy.start_episode()
    about = Checkpoint(
        name=re.sub(r"[^!-~]", "_", name)[:_LONGEST_NAME],
        round=-1,
        contract_sha256=layout.contract.sha256,
        seed=-1,
        columns=layout.columns(),
        actions=layout.contract.action.dimensions,
        trained_on=(),
        training={"source": policy.source},
        weights_sha256=hashlib.sha256(content).hexdigest(),
    )
    return about, policy


def _proposer(source: str, function: _Function, layout: RowLayout) -> _Foreign:
    """A model without memory as a policy."""
    wanted = (1, layout.action_size)

    def propose(observation: Array, out: Array, stamp_ns: int) -> Scores:
        action = np.asarray(function(observation.astype(np.float32)[None]))
        if action.shape != wanted:
            raise DaggerError(f"{source}: expected actions of shape {wanted}, got {action.shape}")
        out[:] = action[0]
        return Scores(doubt=0.0)

    return _Foreign(source, lambda: None, propose)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DaggerError(f"{path}: expected the file of a policy here; {error.strerror}") from error


def _missing(path: Path | str, package: str) -> DaggerError:
    return DaggerError(f"{path}: expected the package {package} to run this policy, and it is not installed")


def _onnx(path: Path, content: bytes, layout: RowLayout) -> _Function:
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing(path, "onnxruntime") from error
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) < _ONNXRUNTIME:
        raise _missing(path, f"onnxruntime {_ONNXRUNTIME[0]}.{_ONNXRUNTIME[1]} or newer")
    options = onnxruntime.SessionOptions()
    # Weights in other files are not covered by the hash; no file is found in this folder.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", "/dev/null")
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is wrong is raised
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no base class for its errors
        raise DaggerError(
            f"{path}: expected an ONNX model with its weights in the same file (torch.onnx.export: "
            f"external_data=False); {error}"
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for found, size, what in ((inputs, layout.observation_size, "input"), (outputs, layout.action_size, "output")):
        fits = len(found) == 1 and found[0].type == "tensor(float)" and _is_row(found[0].shape, size)
        if not fits:
            words = ", ".join(f"{v.name} {v.shape} {v.type}" for v in found)
            raise DaggerError(
                f"{path}: expected one {what} of shape (1, {size}) float32 for contract {layout.contract.name}, "
                f"got {words}"
            )
    said = session.get_modelmeta().custom_metadata_map
    for key, names in (("columns", layout.columns()), ("actions", layout.contract.action.dimensions)):
        if said.get(key, ",".join(names)) != ",".join(names):
            raise DaggerError(
                f"{path}: expected {key} {','.join(names)}, as contract {layout.contract.name} has them; "
                f"the model says {said[key]}"
            )
    return lambda observation: session.run(None, {inputs[0].name: observation})[0]


def _is_row(shape: list[Any], size: int) -> bool:
    """Whether a shape can be (1, size); a dimension without a number is free."""
    return len(shape) == 2 and all(not isinstance(n, int) or n == m for n, m in zip(shape, (1, size), strict=True))


def _torch(path: Path, content: bytes, device: str) -> _Function:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        raise DaggerError(f"{path}: expected what torch.jit.save or torch.export.save wrote; it is not, or damaged")
    import torch

    if device == "cuda":
        need_cuda(str(path), f"torch:{path}")
    torch.set_num_threads(1)
    try:
        if path.suffix == _EXPORTED:
            program = torch.export.load(io.BytesIO(content))
            if any(tensor.device.type != device for tensor in program.state_dict.values()):
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
            model = program.module()
        else:
            model = torch.jit.load(io.BytesIO(content), map_location=device).eval()  # type: ignore[no-untyped-call]
    except Exception as error:  # torch has no base class for what it raises here
        raise DaggerError(
            f"{path}: expected TorchScript (.pt, .ts), or torch.export (.pt2) of a model on a device that is "
            f"here, not a state_dict; {error}"
        ) from error

    def function(observation: Array) -> Any:
        with torch.inference_mode():
            return model(torch.from_numpy(observation).to(device)).cpu().numpy()

    return function


def _sb3(path: Path, content: bytes, algorithm: str, layout: RowLayout) -> _Function:
    try:
        import stable_baselines3
    except ImportError as error:
        raise _missing(path, "stable-baselines3") from error
    try:
        model = getattr(stable_baselines3, algorithm).load(io.BytesIO(content), device="cpu")
    except Exception as error:  # whatever unpickling brings
        raise DaggerError(f"{path}: expected a model that {algorithm}.save wrote; {error}") from error
    wanted, found = (layout.observation_size,), model.observation_space.shape
    if found != wanted:
        raise DaggerError(f"{path}: expected observations of shape {wanted} for this contract, got {found}")
    return lambda observation: model.predict(observation, deterministic=True)[0]


def _made(text: str, layout: RowLayout) -> tuple[bytes, _Foreign]:
    """The source of a module, and the policy that a factory in it made."""
    module_name, _, name = text.partition(":")
    try:
        module = importlib.import_module(module_name)
        content = Path(module.__file__ or "").read_bytes()
        factory = getattr(module, name)
        made = factory(layout.contract)
    except Exception as error:  # a boundary: it is somebody else's code
        raise DaggerError(
            f"{text}: expected a function {name}(contract) in a Python file that can be imported as {module_name}; "
            f"{type(error).__name__}: {error}"
        ) from error
    if hasattr(made, "act") and hasattr(made, "start_episode"):
        return content, _Foreign(text, made.start_episode, made.act, *_wants(text, made, layout.contract))
    if hasattr(made, "predict"):
        return content, _proposer(text, made.predict, layout)
    raise DaggerError(
        f"{text}: expected an object with start_episode() and act(observation, out, stamp_ns) (and, if it wants "
        "pictures, with cameras and see(camera, picture, stamp_ns)), or with "
        f"predict(observations (1, O) float32) that gives (1, A); got {type(made).__name__}"
    )


def _wants(text: str, made: Any, contract: Contract) -> tuple[tuple[str, ...], _Look | None]:
    """The cameras that a policy wants pictures of, and what takes them."""
    cameras = tuple(getattr(made, "cameras", ()))
    unknown = [str(name) for name in cameras if name not in contract.cameras]
    if unknown:
        raise DaggerError(
            f"{text}: expected cameras of contract {contract.name} ({', '.join(contract.cameras) or 'it has none'}), "
            f"the policy wants {', '.join(unknown)}"
        )
    if cameras and not hasattr(made, "see"):
        raise DaggerError(f"{text}: expected see(camera, picture, stamp_ns) of a policy that has cameras")
    return cameras, getattr(made, "see", None)
