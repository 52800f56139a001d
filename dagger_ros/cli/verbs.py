"""What a file of verbs adds its own to."""

from __future__ import annotations

import argparse
from typing import TypeAlias

__all__ = ["Verbs"]

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
