"""Reads again what a run left: bags, what is counted in them, weights, what they were trained on, and rollouts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from dagger_ros.contract import Contract, DaggerError, load_contract
from dagger_ros.dagger import check_policy, policy_folder
from dagger_ros.dataset import round_folder, round_folders, verify_round
from dagger_ros.evaluation import check_result
from dagger_ros.policy import load_checkpoint

__all__ = ["verify"]


def verify(out: Path) -> Iterator[tuple[Path, str]]:
    """Checks every part of a run.

    Args:
        out: Folder of the run.

    Returns:
        Each part, and what is wrong with it; empty: nothing.

    Raises:
        DaggerError: If there is no run.
    """
    folders = round_folders(out)
    contract = load_contract(out / "contract.yaml")
    checks: list[tuple[Path, Callable[[], object]]] = []
    last = int(folders[-1].name)
    for k in itertools.count():
        parts: list[tuple[Path, Callable[[], object]]] = [
            (round_folder(out, k), partial(_verify_round, out, k, contract)),
            (policy_folder(out, k), partial(check_policy, out, k, contract)),
            *((folder, partial(check_result, folder, contract)) for folder in _panels(out, k)),
        ]
        there = [part for part in parts if part[0].exists()]
        if not there and k > last:
            break
        checks += there
    dataset = out / "dataset"
    if dataset.exists():
        from dagger_ros.dataset.export import verify_lerobot  # its libraries are of no use to a run

        checks.append((dataset, partial(verify_lerobot, out, out / "contract.yaml", dataset)))
    for path, check in checks:
        try:
            check()
        except DaggerError as error:
            yield path, str(error)
        else:
            yield path, ""


def _verify_round(out: Path, k: int, contract: Contract) -> None:
    """Counts a round anew, and compares the policies that drove in it with those that are there."""
    folder = round_folder(out, k)
    # An episode of each policy that drove; those of another run, from which episodes were merged, are not here.
    episodes = [e for e in verify_round(folder, contract).episodes if e.source is None]
    drove = {driver: e.episode for e in episodes for driver in e.policies.items()}
    for (name, sha256), episode in drove.items():
        about, _ = load_checkpoint(out / "policies" / name, contract)
        if about.weights_sha256 != sha256:
            raise DaggerError(
                f"{folder}: episode {episode} was driven by {name} with weights {sha256[:12]}; those of that "
                f"name in {out / 'policies'} are {about.weights_sha256[:12]}"
            )


def _panels(out: Path, k: int) -> list[Path]:
    """The results of every panel of a policy."""
    folder = out / "panels" / policy_folder(out, k).name
    return sorted(f for f in folder.glob("[!.]*") if f.is_dir())
