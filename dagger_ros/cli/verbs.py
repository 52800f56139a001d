"""What a file of verbs adds its own to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

__all__ = ["Verbs"]

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
