"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["counted", "listed", "make_console", "tables"]


def make_console() -> Console:
    """Plain text; wide where it is not a terminal."""
    from rich.console import Console

    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)


def tables(console: Console | None = None) -> Callable[[str, str, Sequence[Sequence[object]]], None]:
    """Prints tables: a title, columns by name, rows; whatever is a number stands at the right."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    console = console or make_console()

    def table(title: str, columns: str, rows: Sequence[Sequence[object]]) -> None:
        result = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD)
        for i, column in enumerate(columns.split(", ")):
            numeric = all(isinstance(row[i], (int, float)) for row in rows)
            result.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            result.add_row(*(f"{cell:g}" if isinstance(cell, float) else escape(str(cell)) for cell in row))
        console.print(result)

    return table


def listed(numbers: Sequence[float]) -> str:
    """Numbers, comma-separated."""
    return ", ".join(f"{number:g}" for number in numbers)


def counted(names: Iterable[str]) -> str:
    """How often each name occurs."""
    return ", ".join(f"{count} {name}" for name, count in sorted(Counter(names).items())) or "-"
