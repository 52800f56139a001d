"""docs/safety.md says what the code does and names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from dagger_ros.supervisor import ABOUT, Response

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "safety.md").read_text(encoding="utf-8")
WORDS = {
    Response.NOTE: "note",
    Response.LIMIT: "limit",
    Response.HOLD_EXPERT: "the expert does not drive",
    Response.HOLD_POLICY: "the policy does not drive",
    Response.HOLD: "nobody drives",
    Response.LOCK: "lock",
    Response.ESTOP: "emergency stop",
}


def test_table_of_reasons_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| ([a-z ]+) \| (.*) \|$", TEXT, re.MULTILINE)
    assert rows == [(reason.name, WORDS[about.response], about.words) for reason, about in ABOUT.items()]


def test_every_hazard_has_a_row() -> None:
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)] == list(range(1, 38))


def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_exists() -> None:
    files = {path.name: path for path in (ROOT / "test").rglob("test_*.py")}
    rows = re.findall(r"^\| \d+ \|.*$", TEXT, re.MULTILINE)
    assert len(rows) == 37
    for row in rows:
        tests = re.findall(r"`([^`]*)`", row.rsplit("|", 2)[1])
        assert tests, row
        name = function = ""
        for test in tests:
            match = re.fullmatch(r"(?:(test_\w+\.py))?(?:(?:::)?(test_\w+))?(?:\[(\w+)\])?", test)
            if match is None:
                assert (ROOT / test).is_file(), test  # a benchmark
                continue
            name, function = match[1] or name, match[2] or function
            assert name in files, test
            if match[2]:
                assert function in functions(files[name]), test
            if match[3]:
                assert f'"{match[3]}"' in files[name].read_text(encoding="utf-8"), test
