"""Options for how a policy is trained: one for each field of `TrainingSettings`, described by its docstring."""

from __future__ import annotations

import argparse
import inspect
import re
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dagger_ros.learning.settings import TrainingSettings

__all__ = ["add_training_options", "training_of"]


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Adds them, in a group of their own."""
    group = parser.add_argument_group("training")
    kinds, texts = get_type_hints(TrainingSettings), _texts()
    for field in fields(TrainingSettings):
        kind, default = kinds[field.name], field.default
        option: dict[str, Any] = {"default": default, "dest": field.name}
        if kind is bool:
            option["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is Literal:
            option["metavar"] = "|".join(get_args(kind))
        elif get_origin(kind) is tuple:
            option |= {"type": _whole_numbers, "metavar": "N,N"}
            default = ",".join(map(str, field.default))  # type: ignore[arg-type]
        else:
            option |= {"type": kind, "metavar": "N" if kind is int else "X"}
        text = texts[field.name].rstrip(".").replace("%", "%%")
        group.add_argument(f"--{field.name.replace('_', '-')}", help=f"{text} (default: {default})", **option)


def training_of(options: argparse.Namespace) -> TrainingSettings:
    """What was chosen.

    Raises:
        DaggerError: If it cannot be.
    """
    return TrainingSettings(**{field.name: getattr(options, field.name) for field in fields(TrainingSettings)})


def _texts() -> dict[str, str]:
    """What the docstring says of each field, on one line."""
    section = re.search(r"^Args:\n(.*?)\n\n", inspect.getdoc(TrainingSettings) or "", re.DOTALL | re.MULTILINE)
    entries = re.split(r"^    (\w+): ", section[1] if section else "", flags=re.MULTILINE)[1:]
    return {name: " ".join(text.split()) for name, text in zip(entries[::2], entries[1::2], strict=True)}


def _whole_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected whole numbers, comma-separated, got {text!r}") from error
