from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dagger_ros.contract import Contract
from dagger_ros.evaluation import write_report


def make_result(contract: Contract) -> dict[str, Any]:
    def round_(index: int, rate: float) -> dict[str, Any]:
        return {
            "round": index,
            "policy": f"pi_{index:03d}",
            "labels_new": 100,
            "labels_total": 100 * (index + 1),
            "takeovers": 3,
            "context_switches": 5,
            "help_requests": 0,
            "intervention_rate": 0.2,
            "panel": {
                "name": "nominal",
                "sha256": "b" * 64,
                "n": 30,
                "success_rate": rate,
                "success_ci95": [max(0.0, rate - 0.1), min(1.0, rate + 0.1)],
                "metric": {"name": contract.task.metric.name, "mean": rate},
                "failures": {"jammed": 3},
            },
        }

    return {
        "schema": "dagger_ros.result/1",
        "task": contract.name,
        "rule": "<b>hg</b>",
        "seed": 0,
        "contract_sha256": contract.sha256,
        "rounds": [round_(0, 0.1), round_(1, 0.93)],
        "recommended": {"round": 1, "policy": "pi_001"},
        "stop": {"reason": "all 1 rounds are done"},
    }


class Tags(HTMLParser):
    """Finds what is left open and what points outside."""

    VOID = frozenset({"meta", "link", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("href", "src")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def html(contract: Contract, tmp_path: Path) -> str:
    return write_report(tmp_path, contract, make_result(contract)).read_text()


def test_report_is_one_whole_file_that_needs_no_network(html: str) -> None:
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert all(r.startswith(("data:", "#")) for r in tags.references)
    assert "url(http" not in html
    assert "@import" not in html


def test_report_says_what_changed_in_words_and_numbers(html: str, contract: Contract) -> None:
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html))
    assert "pi_000 (demonstrations alone) succeeded in 10 %. pi_001 succeeded in 93 %" in text
    assert "after 200 expert labels" in text
    assert contract.sha256 in text
    assert all(name in text for name in contract.streams)


def test_report_escapes_what_it_is_given(html: str) -> None:
    assert "<b>hg</b>" not in html


def test_same_result_gives_the_same_file(contract: Contract, tmp_path: Path) -> None:
    first = write_report(tmp_path / "a", contract, make_result(contract)).read_bytes()
    assert first == write_report(tmp_path / "b", contract, make_result(contract)).read_bytes()
