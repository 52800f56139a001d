"""What a diagnosis found, as data and as `diagnosis.json`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from dagger_ros.contract import DaggerError
from dagger_ros.contract.files import write_file
from dagger_ros.evaluation.panel import RolloutKey

__all__ = ["DIAGNOSIS", "Diagnosis", "Reruns", "RolloutDiagnosis"]

DIAGNOSIS = "diagnosis.json"
_SCHEMA = 1
# What is removed by something being put in its place.
_WORDS = {
    "evaluation": "judged anew from the true state",
    "horizon of the panel": "with the time that the contract gives",
    "expert": "the expert from the start",
    "planning": "the expert in familiar states",
    "data_coverage": "the expert in unfamiliar states",
    "nothing": "with a little noise on what it sees",
}


@dataclass(frozen=True)
class Reruns:
    """The rollout again, with something changed.

    Args:
        removed: A cause, or what else was changed.
        healed: How many reruns succeeded.
        of: How many there were; 0: it could not be tested.
    """

    removed: str
    healed: int
    of: int

    @property
    def words(self) -> str:
        """What was changed."""
        return _WORDS.get(self.removed, f"without {self.removed}")


@dataclass(frozen=True)
class RolloutDiagnosis:
    """Why one rollout failed.

    Args:
        condition: Of the panel.
        seed: Of the rollout.
        failure: Failure label of the contract.
        cause: A `Cause`; empty: none could be shown.
        onset_tick: Last tick from which the expert still saves it; -1: none known.
        onset_s: The same in seconds since the start; -1: none known.
        evidence: Sentences, the most telling first.
        reruns: What was tried.
    """

    condition: str
    seed: int
    failure: str
    cause: str
    onset_tick: int
    onset_s: float
    evidence: tuple[str, ...]
    reruns: tuple[Reruns, ...]

    @property
    def key(self) -> RolloutKey:
        """Which one."""
        return RolloutKey(self.condition, self.seed)


@dataclass(frozen=True)
class Diagnosis:
    """Why the failed rollouts of one policy on one panel failed.

    Args:
        policy: Name of the policy.
        panel: Name of the panel.
        contract_sha256: Of the contract.
        rollouts: The failed ones, in the order of the panel.
    """

    policy: str
    panel: str
    contract_sha256: str
    rollouts: tuple[RolloutDiagnosis, ...]
    schema: int = _SCHEMA

    @property
    def causes(self) -> dict[str, int]:
        """How often each occurs, the most frequent first; `unknown`: none could be shown."""
        return dict(Counter(sorted(r.cause or "unknown" for r in self.rollouts)).most_common())

    def write(self, folder: Path) -> None:
        """Writes it into the folder of the panel's result."""
        content = asdict(self) | {"causes": self.causes}
        write_file(folder / DIAGNOSIS, (json.dumps(content, indent=1) + "\n").encode())

    @staticmethod
    def read(folder: Path) -> Diagnosis:
        """Reads what `write` wrote.

        Raises:
            DaggerError: If it is missing or not of this format.
        """
        path = folder / DIAGNOSIS
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            content.pop("causes", None)
            diagnosis = TypeAdapter(Diagnosis).validate_json(json.dumps(content), strict=True)
            if diagnosis.schema != _SCHEMA:
                raise ValueError(f"found schema {diagnosis.schema}")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DaggerError(
                f"{path}: expected what dagger-ros diagnose writes (schema {_SCHEMA}); {error}. Diagnose again"
            ) from error
        return diagnosis
