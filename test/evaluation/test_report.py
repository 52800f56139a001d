from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Browser
from conftest import contract_path
from dagger_ros.contract import DaggerError, load_contract
from evaluation.report_run import COUNT, ONSET, Rollouts, make_run, simulate, write_diagnosis

pytest.importorskip("mujoco")
from dagger_ros.evaluation import Trace, write_report
from dagger_ros.evaluation.report import pictures, read_result, words
from dagger_ros.evaluation.report.record import read_record
from dagger_ros.evaluation.report.traces import channels_of, compact_trace, most_points
from dagger_ros.evaluation.report.videos import write_videos
from dagger_ros.sim import load_plant
from dagger_ros.sim.film import Film
from dagger_ros.sim.tasks.peg import PegExpert

pytestmark = pytest.mark.mujoco
CONTRACT = load_contract(contract_path("peg"))


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    return simulate(CONTRACT)


@pytest.fixture(scope="module")
def whole(rollouts: Rollouts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diagnosed run with its report and, where something can draw, pictures; nobody changes it."""
    out = tmp_path_factory.mktemp("run")
    result = make_run(out, CONTRACT, rollouts)
    write_diagnosis(out, CONTRACT, "pi_001", "nominal")
    write_report(out, CONTRACT, result, contract_path=contract_path("peg"), workers=1)
    return out


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """The same for a test that changes it, without the report."""
    out = tmp_path / "run"
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("report"))
    return out


def page_of(out: Path, **result: Any) -> str:
    """The report without pictures."""
    return write_report(out, CONTRACT, read_result(out) | result, pictures=False).read_text(encoding="utf-8")


def text_of(html: str) -> str:
    body = re.sub(r"<(style|script)\b.*?</\1>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body).replace("\N{NO-BREAK SPACE}", " "))


def data_of(html: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])


def draws() -> str:
    """Why nothing can be drawn here; empty: it can."""
    try:
        Film(load_plant(CONTRACT, contract_path("peg")), width=64, height=48).close()
    except DaggerError as error:
        return str(error)
    return ""


class Tags(HTMLParser):
    """Finds what is left open, what is linked, and what is there to be linked to."""

    VOID = frozenset({"meta", "link", "br", "img", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [v or "" for k, v in attrs if k in ("href", "src")]
        self.ids += [v or "" for k, v in attrs if k == "id"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_report_is_one_whole_file_that_needs_no_network(whole: Path) -> None:
    html = (whole / "report" / "index.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    assert all(r.startswith(("data:", "#")) for r in tags.references)
    assert len(set(tags.ids)) == len(tags.ids)
    assert {r[1:] for r in tags.references if r.startswith("#")} <= set(tags.ids)
    assert "url(http" not in html
    assert "@import" not in html


def test_first_screen_answers_what_both_an_engineer_and_her_manager_ask(whole: Path) -> None:
    text = text_of((whole / "report" / "index.html").read_text(encoding="utf-8"))
    assert "Did it get better? Yes: 17 % → 83 % success" in text
    assert "pi_001 succeeded in 5 of 6 held-out rollouts; pi_000 succeeded in 1 of 6" in text
    assert "How sure are we? 83 % (44–97 %) on 6 fresh rollouts Nothing was chosen on those" in text  # noqa: RUF001
    assert "4 succeeded only with pi_001 and 0 only with pi_000 (exact McNemar p = 0.12)" in text
    assert "What did it cost? 200 expert labels 100 of them demonstrations; then 3 takeovers in 1 round" in text
    assert "1 of 6 on final; 1 of 6 on nominal" in text
    assert "final: 1 not found; causes not diagnosed yet. nominal: 1 not found; caused by 1 data coverage." in text
    assert "Which policy to take? pi_001" in text
    assert "The recorded rounds could not be read" in text


def test_hashes_of_what_it_rests_on_are_in_the_report(whole: Path) -> None:
    text = text_of((whole / "report" / "index.html").read_text(encoding="utf-8"))
    panels = {r["panel"]["sha256"] for r in read_result(whole)["rounds"]}
    assert all(sha256 in text for sha256 in (CONTRACT.sha256, *panels, "1" * 64))


def test_report_of_a_run_that_did_not_get_better_says_so(run: Path) -> None:
    text = text_of(page_of(run, recommended={"round": 0, "policy": "pi_000"}, final=None))
    assert "Did it get better? No No later policy did better than pi_000" in text
    assert "The policy was chosen on these rollouts, so its figure is a little optimistic." in text


def test_what_comes_from_outside_stays_text(run: Path) -> None:
    html = page_of(run, rule="<b>hg</b>", stop={"reason": "</script><i>"})
    assert "<b>hg" not in html
    assert "<i>" not in html
    assert "<nobody>" not in html
    assert data_of(html)["rollouts"][f"nominal/pi_001/plain-{1_000_000_000 + COUNT - 1}"]["cause"]["evidence"] == [
        "It stood still where <nobody> had been."
    ]


def test_same_run_gives_the_same_file_byte_for_byte_wherever_it_lies(whole: Path, run: Path) -> None:
    twice = [write_report(out, CONTRACT, read_result(out), pictures=False, page=run / out.name) for out in (whole, run)]
    assert twice[0].read_bytes() == twice[1].read_bytes()


def test_where_nothing_can_draw_the_report_says_so_and_has_the_traces(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    path = write_report(run, CONTRACT, read_result(run), contract_path=contract_path("peg"), workers=1)
    html = path.read_text(encoding="utf-8")
    assert "There are no pictures, only traces. pictures: expected a way to draw without a window" in text_of(html)
    assert len(data_of(html)["rollouts"]) == 5 * COUNT


def test_without_the_model_the_report_says_what_is_missing(run: Path) -> None:
    html = write_report(run, CONTRACT, read_result(run), workers=1).read_text(encoding="utf-8")
    assert "There are no pictures, only traces" in html
    assert "expected an MJCF file at" in html


def test_pictures_show_the_onset_and_fit_into_the_file(whole: Path) -> None:
    if reason := draws():
        pytest.skip(reason)
    html = (whole / "report" / "index.html").read_text(encoding="utf-8")
    data = data_of(html)
    failed = data["rollouts"][f"nominal/pi_001/plain-{1_000_000_000 + COUNT - 1}"]
    ticks = data["films"][failed["film"]]["ticks"]
    assert len(ticks) == 24
    assert {0, ONSET, failed["ticks"]} <= set(ticks)
    assert f"{ONSET / 20:.2f} s ▼ onset" in html.replace("&#9660;", "▼")
    size = sum(len(f["near"]) + len(f["whole"]) for f in data["films"]) / sum(len(f["ticks"]) for f in data["films"])
    assert size * pictures.MOST_PICTURES < 7e6


def test_what_failed_with_the_recommended_policy_is_drawn_first(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_record(run, CONTRACT, read_result(run))
    shots = pictures.plan(record)
    assert [(s.policy, s.panel, s.onset) for s in shots[:2]] == [("pi_001", "nominal", ONSET), ("pi_001", "final", -1)]
    # Every rollout of the panel that chose; of the others those with a failure or help.
    assert len(shots) == len({s.trace for s in shots}) == 2 * COUNT + (COUNT - 1) + 1 + 1
    monkeypatch.setattr(pictures, "MOST_PICTURES", 50)
    assert [s.count for s in pictures.plan(record)] == [24, 24]


def test_video_has_a_picture_of_every_tick_and_of_the_end(run: Path, tmp_path: Path) -> None:
    if reason := draws():
        pytest.skip(reason)
    av = pytest.importorskip("av")
    shot = pictures.plan(read_record(run, CONTRACT, read_result(run)))[0]
    trace = Trace.read(shot.trace)
    short = dataclasses.replace(trace, rows=trace.rows[:4], scene=trace.scene[:5])
    shot.trace.write_bytes(short.to_bytes())
    (path,) = write_videos([shot], contract_path("peg"), tmp_path / "videos", workers=1, on_video=lambda: None)
    assert path.name == f"pi_001-nominal-plain-{1_000_000_000 + COUNT - 1}.mp4"
    with av.open(str(path)) as video:
        assert video.streams.video[0].average_rate == 20
        assert sum(1 for _ in video.decode(video=0)) == 5


@pytest.mark.parametrize("kind", ["good", "bad", "helped"])
def test_trace_in_the_page_is_the_recorded_one(rollouts: Rollouts, kind: str) -> None:
    _, rows, _ = rollouts[kind]
    expert = PegExpert(CONTRACT)
    trace = compact_trace(CONTRACT, rows, expert)
    steps = np.frombuffer(base64.b64decode(trace["values"]), "<u2").reshape(-1, trace["points"])
    names = [channels_of(CONTRACT, progress=True)[i] for i in trace["channels"]]
    values = {
        (name["name"], name["plot"]): low + (high - low) * step / 65534
        for name, step, (low, high) in zip(names, steps, trace["ranges"], strict=True)
    }
    for i, dimension in enumerate("xyz"):
        drawn = values["executed", f"action v{dimension}"]
        assert drawn == pytest.approx(rows["executed_action"][:, i], abs=1e-5)
        assert values[dimension, "true_peg_in_hole (hidden from the policy)"] == pytest.approx(
            rows["privileged"][:, i], abs=1e-5
        )
    assert values["doubt", "doubt of the policy"] == pytest.approx(rows["doubt"], abs=1e-6)
    modes = [mode for mode, first, end in trace["modes"] for _ in range(first, end)]
    assert len(modes) == len(rows)
    assert ("expert" in modes) == (kind == "helped")
    assert all("EXPERT_NEVER" not in words for words, _, _ in trace["reasons"])


def test_long_trace_is_thinned_and_unknown_values_stay_unknown(rollouts: Rollouts) -> None:
    _, rows, _ = rollouts["bad"]
    rows = np.concatenate([rows] * 5)
    rows["doubt"][:250] = np.nan
    rows["novelty"] = np.nan
    trace = compact_trace(CONTRACT, rows, None)
    assert (trace["stride"], trace["points"]) == (3, 200)
    names = [channels_of(CONTRACT, progress=False)[i]["name"] for i in trace["channels"]]
    assert "novelty" not in names
    steps = np.frombuffer(base64.b64decode(trace["values"]), "<u2").reshape(-1, 200)[names.index("doubt")]
    assert (steps == 65535).sum() == len(range(0, 250, 3))


def test_curves_get_fewer_points_where_many_rollouts_share_the_page() -> None:
    assert [most_points(n) for n in (1, 600, 1200, 100_000)] == [200, 200, 100, 40]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schema": "dagger_ros.result/1"},
            r"expected a result of format dagger_ros.result/2, found dagger_ros.result/1",
        ),
        ({"contract_sha256": "0" * 64}, "expected a result under contract peg .* found one under 000000000000"),
    ],
)
def test_result_of_another_format_or_contract_is_refused(run: Path, change: dict[str, str], message: str) -> None:
    path = run / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DaggerError, match=message):
        page_of(run)


def test_run_without_a_whole_result_is_refused(run: Path) -> None:
    (run / "result.json").write_text("[]")
    with pytest.raises(DaggerError, match=r"result.json: expected the result of a run .* it is damaged"):
        read_result(run)
    (run / "result.json").unlink()
    with pytest.raises(DaggerError, match=r"result.json: expected the result of a run here; No such file"):
        read_result(run)


def test_missing_rollouts_and_a_broken_diagnosis_are_named(run: Path) -> None:
    folder = run / "panels" / "pi_001" / "nominal"
    (folder / "diagnosis.json").write_text('{"schema": 7, "rollouts": []}')
    with pytest.raises(DaggerError, match=r"diagnosis.json: expected what dagger-ros diagnose writes"):
        page_of(run)
    shutil.rmtree(folder)
    with pytest.raises(DaggerError, match=r"rollouts.json: expected the rollouts of a panel"):
        page_of(run)


def test_rollouts_of_another_panel_are_refused(run: Path) -> None:
    path = run / "panels" / "pi_001" / "nominal" / "panel.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"count": COUNT - 1}))
    with pytest.raises(DaggerError, match="expected rollouts of panel nominal"):
        page_of(run)


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.0, "0 %"), (0.0001, "<0.1 %"), (0.004, "0.4 %"), (0.5, "50 %"), (0.998, "99.8 %"), (1.0, "100 %")],
)
def test_share_is_never_rounded_to_all_or_nothing(share: float, said: str) -> None:
    assert words.percent(share).replace("\N{NO-BREAK SPACE}", " ") == said


def test_report_of_a_zip_file_is_that_of_the_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ament_index_python")
    from dagger_ros.cli import main

    packed = Path(shutil.make_archive(str(run.parent / "packed"), "zip", run.parent, run.name))
    main(["report", str(run), "--no-pictures"])
    main(["report", str(packed), "--no-pictures"])
    assert f"report: {packed.parent / 'packed-report.html'}" in capsys.readouterr().out
    assert (run / "report" / "index.html").read_bytes() == (packed.parent / "packed-report.html").read_bytes()


@pytest.mark.parametrize(
    ("name", "message"),
    [("no.zip", "expected a zip file of a run, with result.json"), ("none", "result.json: expected")],
)
def test_what_is_no_run_is_refused_with_exit_code_2(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ament_index_python")
    from dagger_ros.cli import main

    (tmp_path / "empty").mkdir()
    shutil.make_archive(str(tmp_path / "no"), "zip", tmp_path / "empty")
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(tmp_path / name)])
    assert message in capsys.readouterr().err


def test_in_a_browser_everything_opens_at_both_widths_and_nothing_complains(whole: Path, tmp_path: Path) -> None:
    page = whole / "report" / "index.html"
    shown = "document.querySelector('dialog').open && document.querySelectorAll('#plots svg').length > 5"
    fits = (
        "document.documentElement.scrollWidth <= innerWidth && "
        "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
    )
    with Browser(tmp_path / "profile") as browser:
        for width in (1280, 390):
            browser.open(page, width=width)
            assert browser.run(fits)
            links = browser.run("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
            assert all(browser.run(f"document.getElementById({json.dumps(link[1:])}) !== null") for link in set(links))
            cells = browser.run("[...document.querySelectorAll('a.cell')].map(a => a.id)")
            assert len(cells) == 5 * COUNT
            for cell in cells:
                browser.run(f"document.getElementById({json.dumps(cell)}).click()")
                browser.wait(f"location.hash === '#' + {json.dumps(cell)} && {shown}")
                assert browser.run(fits), cell
                browser.run("document.getElementById('close').click()")
                browser.wait("!document.querySelector('dialog').open && location.hash === ''")
        # With the keyboard alone; the page is at its narrow width still.
        browser.run(f"document.getElementById({json.dumps(cells[0])}).focus()")
        browser.press("ArrowRight", "ArrowDown")
        assert browser.run("document.activeElement.id") == "nominal/pi_001/plain-1000000001"
        browser.press("Enter")
        browser.wait(shown)
        assert browser.run("document.getElementById('rollout-title').textContent").startswith(
            "pi_001, plain-1000000001"
        )
        browser.press("Escape")
        browser.wait("!document.querySelector('dialog').open")
        assert browser.run("document.activeElement.id") == "nominal/pi_001/plain-1000000001"
        # And from an address that somebody was sent.
        browser.open(page, width=1280, mark=f"#nominal/pi_001/plain-{1_000_000_000 + COUNT - 1}")
        browser.wait(shown)
        assert "data coverage" in browser.run("document.getElementById('rollout-cause').textContent")
    assert browser.problems == []
    assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data", "about"}
