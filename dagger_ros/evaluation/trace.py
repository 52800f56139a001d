"""One rollout as it was: every decided row, where everything stood, and how it ended."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagger_ros.contract import DaggerError
from dagger_ros.evaluation.panel import RolloutResult

__all__ = ["Trace"]


@dataclass(frozen=True)
class Trace:
    """One rollout.

    Args:
        result: How it ended.
        policy_sha256: Weights of the policy.
        panel_sha256: Of the panel.
        contract_sha256: Of the contract.
        rows: (T,) decided rows, `contract.RowLayout`.
        scene: (T + 1, S) float32, `MujocoPlant.scene` before each decision and at the end.
    """

    result: RolloutResult
    policy_sha256: str
    panel_sha256: str
    contract_sha256: str
    rows: np.ndarray[Any, np.dtype[Any]]
    scene: np.ndarray[Any, np.dtype[np.float32]]

    def to_bytes(self) -> bytes:
        """A compressed npz file."""
        about = {n: getattr(self, n) for n in ("policy_sha256", "panel_sha256", "contract_sha256")}
        about["result"] = asdict(self.result)
        buffer = io.BytesIO()
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez_compressed(buffer, rows=self.rows, scene=self.scene, about=text)
        return buffer.getvalue()

    @staticmethod
    def read(path: Path) -> Trace:
        """Reads what `to_bytes` made.

        Raises:
            DaggerError: If it is missing or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as content:
                about = json.loads(content["about"].tobytes())
                result = RolloutResult(**about.pop("result"))
                return Trace(result=result, rows=content["rows"], scene=content["scene"], **about)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DaggerError(f"{path}: expected the trace of a rollout; {error}") from error
