"""The peer's virtual environment: made once, used by a process for each job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from job import Job, Stage

from dagger_ros.contract import DaggerError

HERE = Path(__file__).resolve().parent
_REQUIREMENTS = HERE / "requirements.txt"
# Of the surroundings that our own virtual environment sets up, what would lead the peer's Python to our packages.
_OURS = ("LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class PeerVenv:
    """Runs jobs with `imitation`.

    Args:
        folder: Gets `venv`, which is made anew where requirements.txt has changed.
        root: Of this repository, which the peer's Python finds.

    Raises:
        DaggerError: If the packages cannot be installed.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        venv = folder.resolve() / "venv"
        self._python, stamp = venv / "bin" / "python", venv / "requirements.txt"
        self._environment = {k: v for k, v in os.environ.items() if k not in _OURS}
        self._environment |= {"PYTHONPATH": str(root), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        wanted = _REQUIREMENTS.read_text()
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        print(f"installing the peer into {venv} (1.9 GB, some minutes)", flush=True)
        commands = (
            [sys.executable, "-m", "venv", "--clear", str(venv)],
            [str(self._python), "-m", "pip", "install", "--quiet", "-r", str(_REQUIREMENTS)],
        )
        for command in commands:
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise DaggerError(f"{venv}: expected to install the peer; {done.stderr.strip()[-800:]}")
        stamp.write_text(wanted)

    def stages(self, job: Job, folder: Path) -> list[Stage]:
        """What a training job leaves, round by round."""
        return [Stage(**said) for said in self.run(job, folder)]

    def run(self, job: Job, folder: Path) -> Any:
        """Does a job in a process of its own.

        Args:
            job: What.
            folder: For the job, its output and its result.

        Raises:
            DaggerError: If it fails.
        """
        folder.mkdir(parents=True, exist_ok=True)
        asked, answer, log = folder / "job.json", folder / "result.json", folder / "log.txt"
        job.write(asked)
        command = [str(self._python), "-W", "ignore", str(HERE / "peer.py"), str(asked), str(answer)]
        with log.open("w") as output:
            done = subprocess.run(command, env=self._environment, stdout=output, stderr=output, check=False)
        if done.returncode:
            raise DaggerError(f"{asked}: the peer failed; the end of {log}:\n{log.read_text()[-800:]}")
        return json.loads(answer.read_text())
