"""The verb `security`: the rights of each node under a contract, as a policy file of SROS2."""

from __future__ import annotations

import argparse
from pathlib import Path

from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import load_contract
from dagger_ros.contract.access import graph_access, policy_text
from dagger_ros.contract.files import write_file

__all__ = ["add_verbs"]


def add_verbs(verbs: Verbs) -> None:
    """Adds it to the command line."""
    parser = verbs.add_parser("security", help="write the rights of each node under a contract, a policy of SROS2")
    parser.add_argument("--contract", type=Path, required=True, help="task contract, a YAML file")
    parser.add_argument("--namespace", default="", help="of the nodes (default: none)")
    parser.add_argument(
        "--simulation", action="store_true", help="MuJoCo stands for the robot (default: a robot with its driver)"
    )
    parser.add_argument("--out", type=Path, required=True, help="policy file to write, XML")
    parser.set_defaults(run=_security)


def _security(options: argparse.Namespace) -> None:
    rights = graph_access(load_contract(options.contract), simulation=options.simulation)
    write_file(options.out, policy_text(rights, options.namespace).encode())
    print(f"{options.out}: {len(rights)} enclaves: {', '.join(rights)}")
