"""`dagger-ros VERB`: what a person types. Exit code 2 and one message for what the user can mend."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool

from dagger_ros import __version__
from dagger_ros.cli import contract, data, diagnose, doctor, evaluate, imports, replay, report, runs, security
from dagger_ros.contract import DaggerError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one verb."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: nothing is left behind
    try:
        options.run(options)
    except DaggerError as error:
        print(f"dagger-ros {options.verb}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # whoever read has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        print(f"dagger-ros {options.verb}: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        if not str(error.name).startswith(("rclpy", "dagger_ros.", "ament_index_python")):
            raise
        print(
            f"dagger-ros {options.verb}: expected ROS 2 and the built messages of this package; there is no module "
            f"{error.name}. Run `make env`, or build with colcon and source install/setup.bash",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except BrokenProcessPool:
        print(
            f"dagger-ros {options.verb}: a process of it was killed (is there enough memory?){_again(options)}",
            file=sys.stderr,
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"dagger-ros {options.verb}: interrupted{_again(options)}", file=sys.stderr)
        raise SystemExit(130) from None


def _again(options: argparse.Namespace) -> str:
    """How to go on with what was cut short."""
    hints = {
        "run": "; the same command with --resume goes on",
        "compare": "; the same command goes on",
        "evaluate": "; the same command goes on",
    }
    return hints.get(options.verb, "")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dagger-ros", description="DAgger on a robot with ROS 2.")
    parser.add_argument("--version", action="version", version=f"dagger_ros {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for part in (contract, runs, doctor, evaluate, diagnose, report, data, imports, replay, security):
        part.add_verbs(verbs)
    return parser
