from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import contract_path, small_panel, weak_policy
from dagger_ros.cli import main
from dagger_ros.contract import Contract, DaggerError, RowLayout, Scores, load_contract
from dagger_ros.dataset import TrainingEpisode
from dagger_ros.evaluation import PanelRunner, RolloutKey, Trace, run_rollout, trace_path
from dagger_ros.evaluation.diagnose import Diagnosis, Reruns, RolloutDiagnosis, diagnose, failed_rollouts
from dagger_ros.evaluation.diagnosis import attribute as attribute_module
from dagger_ros.evaluation.diagnosis.attribute import attribute
from dagger_ros.evaluation.diagnosis.judges import JUDGES
from dagger_ros.evaluation.diagnosis.reruns import REPEATS, Laboratory, Share
from dagger_ros.evaluation.diagnosis.taught import Lesson, taught_by
from dagger_ros.evaluation.diagnosis.usual import Usual, expert_actions, usual, wrong_decisions
from dagger_ros.evaluation.diagnosis.worlds import REMOVABLE, Cause, World
from dagger_ros.policy import Checkpoint
from dagger_ros.sim import MujocoPlant, Perturbation, load_plant
from dagger_ros.sim.tasks import TASKS
from planted import FAULTS, Fault, Planted, harmless_beside, plant_fault

pytestmark = pytest.mark.mujoco
PEG, LANE = (load_contract(contract_path(task)) for task in ("peg", "lane"))
FIRST = 1_003_000_000
USUAL = Usual()


@dataclass
class Seeing:
    """The scripted expert as a policy: it knows nothing but what a policy sees, and may have been taught wrongly.

    What it takes for the pose of the peg in the hole is the mean of what the camera says now and of what its own
    tool's pose says, since the first tick at which it saw both.

    Args:
        taught: `good`; `up`: up, wherever the peg is over the hole; `left`: it learned nothing of the other side of
            the hole, and knows that.
        knows_novelty: Whether it gives that score.
    """

    taught: str = "good"
    knows_novelty: bool = True

    def __post_init__(self) -> None:
        layout = RowLayout(PEG)
        self._seen, self._tool = (layout.slices[layout.streams.index(n)] for n in ("peg_in_hole", "tool_position"))
        self._expert = TASKS["peg"](PEG).expert
        self._hole: np.ndarray[Any, Any] | None = None

    def start_episode(self) -> None:
        self._hole = None

    def act(self, observation: np.ndarray[Any, Any], out: np.ndarray[Any, Any], stamp_ns: int) -> Scores:
        seen, tool = observation[self._seen], observation[self._tool]
        if self._hole is None and np.isfinite(observation).all():
            self._hole = tool - seen
        believed = seen if self._hole is None else (seen + tool - self._hole) / 2
        self._expert.act(believed, out)
        novelty = 0.5
        if self.taught == "up" and np.hypot(believed[0], believed[1]) < 0.006 and believed[2] < 0.09:
            out[2] = 0.12
        if self.taught == "left" and believed[1] < -0.015:
            out[:], novelty = 0.0, 3.0
        return Scores(doubt=0.0, novelty=novelty if self.knows_novelty else np.nan)


def seeing(taught: str = "good", contract: Contract = PEG, **options: bool) -> tuple[Checkpoint, Seeing]:
    names = RowLayout(contract).columns(), contract.action.dimensions
    return Checkpoint(taught, 0, contract.sha256, 0, *names, (), {}), Seeing(taught, **options)


def planted(fault: Fault, folder: Path, harmless: Mapping[str, float] | None = None, **options: bool) -> Planted:
    return plant_fault("peg", fault, seeing(fault.policy, **options), folder, harmless or {})


def diagnosed(scene: Planted, trace: Trace, **options: Any) -> RolloutDiagnosis:
    laboratory = Laboratory(scene.contract, contract_path("peg"), scene.policy)
    world = World(scene.contract, scene.perturbation)
    return attribute(laboratory, world, trace, **{"ticks": scene.ticks, "usual": USUAL} | options)


# Faults that this policy, which does not look at its joints and forgives a constant error of its tool, fails by.
PLANTED = [
    f
    for f in FAULTS["peg"]
    if f.policy in ("good", "up", "left")
    and (f.cause, f.name)
    not in (
        (Cause.PERCEPTION, "noise"),
        (Cause.PERCEPTION, "noise in the contract"),
        (Cause.STATE_ESTIMATION, "bias of joints"),
        (Cause.STATE_ESTIMATION, "bias of the tool"),
        (Cause.STATE_ESTIMATION, "noise in the contract"),
        (Cause.CONTROL, "friction"),
        (Cause.CONTROL, "payload"),
        (Cause.CONTROL, "lag in the contract"),
        (Cause.TIMING, "both late"),
    )
]


@pytest.mark.parametrize("index", range(len(PLANTED)), ids=[f"{f.cause.value}-{f.name}" for f in PLANTED])
def test_planted_failure_is_found(index: int, tmp_path: Path) -> None:
    fault = PLANTED[index]
    scene = planted(fault, tmp_path, harmless_beside("peg", fault, index))
    traces = list(scene.failures(FIRST + 100 * index, 1, most=30))
    assert len(traces) == 1
    found = diagnosed(scene, traces[0])
    assert found.cause == fault.cause.value, found
    assert found.evidence
    assert found.failure == traces[0].result.failure


def fault_of(cause: Cause, name: str) -> Fault:
    return next(f for f in FAULTS["peg"] if (f.cause, f.name) == (cause, name))


def test_onset_is_the_last_tick_from_which_the_expert_still_saves_the_rollout(tmp_path: Path) -> None:
    scene = planted(fault_of(Cause.STATE_ESTIMATION, "noise"), tmp_path)
    trace = next(scene.failures(FIRST, 1))
    found = diagnosed(scene, trace)
    laboratory, world = Laboratory(scene.contract, contract_path("peg"), scene.policy), World(PEG, scene.perturbation)

    def saves(first: int) -> bool:
        return laboratory.run(trace.result.key, world, ticks=scene.ticks, when=lambda tick, _: tick >= first)[0].success

    assert 0 < found.onset_tick < len(trace.rows)
    assert saves(found.onset_tick)
    assert not saves(found.onset_tick + 1)
    assert found.onset_s == found.onset_tick / PEG.timing.control_rate_hz
    assert Reruns("expert", 1, 1) in found.reruns


def test_rollout_that_is_run_again_is_the_recorded_one(tmp_path: Path) -> None:
    scene = planted(fault_of(Cause.STATE_ESTIMATION, "noise"), tmp_path, {"observation_drop": 0.02})
    trace = scene.rollout(FIRST)
    laboratory, world = Laboratory(PEG, contract_path("peg"), scene.policy), World(PEG, scene.perturbation)
    for _ in range(2):
        result, rows, scenes = laboratory.run(trace.result.key, world, ticks=scene.ticks)
        assert result == trace.result
        assert rows.tobytes() == trace.rows.tobytes()
        assert scenes.tobytes() == trace.scene.tobytes()


def test_what_cannot_be_tested_is_said_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attribute_module, "JUDGES", {})
    scene = planted(fault_of(Cause.PLANNING, "taught to go up above the hole"), tmp_path, knows_novelty=False)
    found = diagnosed(scene, next(scene.failures(FIRST, 1)))
    assert found.cause == "planning"
    assert {r.removed for r in found.reruns if not r.of} == {"evaluation", "data_coverage"}
    said = " ".join(found.evidence)
    assert "there is no second judge for task peg" in said
    assert "does not say how novel an observation is" in said


def test_failure_that_does_not_come_again_has_no_cause(tmp_path: Path) -> None:
    scene = planted(fault_of(Cause.TIMING, "observations late"), tmp_path)
    trace = next(scene.failures(FIRST, 1))
    found = diagnosed(replace(scene, perturbation=Perturbation()), trace)
    assert (found.cause, found.onset_tick, found.onset_s) == ("", -1, -1.0)
    assert "run again, succeeds: code, model or policy are not those" in found.evidence[0]


def test_panel_in_which_not_even_the_expert_has_the_time_is_named(tmp_path: Path) -> None:
    fault = replace(fault_of(Cause.PLANNING, "taught to go up above the hole"), ticks=15)
    scene = planted(fault, tmp_path)
    found = diagnosed(scene, next(scene.failures(FIRST, 1)))
    assert found.cause == "evaluation"
    assert found.evidence[0].startswith("Not even the expert does it before the panel ends it after 0.75 s")


def test_success_by_luck_does_not_show_a_cause(tmp_path: Path) -> None:
    """Without the noise it succeeds; here even a rollout of none but right decisions counts as luck."""
    scene = planted(fault_of(Cause.STATE_ESTIMATION, "noise"), tmp_path)
    found = diagnosed(scene, next(scene.failures(FIRST, 1)), usual=Usual(wrong=-1.0))
    assert found.cause in ("planning", "data_coverage")
    assert any("it succeeds too (2 of 2 reruns), which shows little" in sentence for sentence in found.evidence)


def test_what_stops_the_expert_too_is_a_cause_whatever_luck_there_is_without_it(tmp_path: Path) -> None:
    scene = planted(fault_of(Cause.TIMING, "observations late"), tmp_path)
    found = diagnosed(scene, next(scene.failures(FIRST, 1)), usual=Usual(wrong=-1.0))
    assert Reruns("expert", 0, 1) in found.reruns
    assert (found.cause, found.onset_tick) == ("timing", -1)


FIELDS = {
    "observation_delay_s": (0.1, {Cause.TIMING}),
    "observation_drop": (0.1, {Cause.TIMING}),
    "observation_noise": (1.0, {Cause.PERCEPTION, Cause.STATE_ESTIMATION}),
    "observation_bias": (1.0, {Cause.PERCEPTION, Cause.STATE_ESTIMATION}),
    "observation_streams": (("joint_position",), set()),
    "camera_shift": (1.0, {Cause.PERCEPTION}),
    "action_delay_s": (0.1, {Cause.TIMING}),
    "actuator_lag_s": (0.1, {Cause.CONTROL}),
    "actuator_gain": (0.5, {Cause.CONTROL}),
    "actuator_limit": (0.5, {Cause.CONTROL}),
    "friction": (2.0, {Cause.CONTROL}),
    "payload_kg": (1.0, {Cause.CONTROL}),
    "start_spread": (2.0, set()),
}


@pytest.mark.parametrize("name", [f.name for f in fields(Perturbation)])
def test_every_perturbation_belongs_to_a_cause_that_removes_it(name: str) -> None:
    value, causes = FIELDS[name]
    world = World(PEG, Perturbation(**{name: value}))
    assert {cause for cause in REMOVABLE if world.has(cause)} == causes
    assert {cause for cause in REMOVABLE if world.perturbs(cause)} == causes
    if causes:
        assert world.without(*causes) == world.plain == World(PEG, Perturbation())


def test_only_the_streams_of_a_cause_are_made_quiet() -> None:
    both = World(PEG, Perturbation(observation_noise=2.0, observation_bias=1.0))
    own = ("tool_position", "joint_position", "joint_velocity", "joint_effort")
    assert both.without(Cause.PERCEPTION).perturbation.observation_streams == own
    assert both.without(Cause.STATE_ESTIMATION).perturbation.observation_streams == PEG.perception
    assert both.without(Cause.PERCEPTION, Cause.STATE_ESTIMATION).perturbation == Perturbation()


def test_noise_and_lag_of_the_contract_itself_are_removed_too() -> None:
    world = World(LANE, Perturbation())
    assert {cause for cause in REMOVABLE if world.has(cause)} == {Cause.PERCEPTION, Cause.CONTROL}
    assert not any(world.perturbs(cause) for cause in REMOVABLE)
    quiet = world.without(*REMOVABLE).contract.simulation
    assert quiet is not None
    assert (quiet.observation_noise, quiet.actuator_noise, quiet.actuator_lag_s) == ({}, {}, 0.0)


def observed(perturbation: Perturbation) -> dict[int, np.ndarray[Any, Any]]:
    plant = load_plant(PEG, contract_path("peg"), perturbation)
    plant.reset(FIRST)
    for _ in range(3):
        samples = plant.observe()
        plant.step(np.zeros(3))
    return {index: values for sample in samples for index, values in sample.values}


def test_what_is_left_of_a_perturbation_is_drawn_as_before() -> None:
    """Otherwise a rerun without one cause would be another rollout in everything else."""
    world = World(
        PEG, Perturbation(observation_noise=2.0, observation_bias=3.0, camera_shift=4.0, observation_drop=1e-9)
    )
    with_all, without = observed(world.perturbation), observed(world.without(Cause.PERCEPTION).perturbation)
    seen = [i for i, (name, s) in enumerate(PEG.streams.items()) if name not in PEG.perception and not s.privileged]
    assert all((with_all[i] == without[i]).all() for i in seen)
    assert all(
        (with_all[i] != without[i]).any() for i in range(len(PEG.streams)) if PEG.perception[0] == [*PEG.streams][i]
    )


@pytest.fixture(scope="module", params=("peg", "lane"))
def driven(request: pytest.FixtureRequest) -> tuple[Contract, MujocoPlant, list[Trace]]:
    """Rollouts of the expert, and of nobody: some succeed, others do not."""
    contract = load_contract(contract_path(request.param))
    plant = load_plant(contract, contract_path(request.param))
    about = seeing(contract=contract)[0]

    @dataclass
    class Expert:
        clumsy: bool

        def start_episode(self) -> None:
            pass

        def act(self, observation: Any, out: Any, stamp_ns: int) -> Scores:
            plant.task.expert.act(plant.truth(), out)
            out *= 0.8 if self.clumsy else 1.0
            return Scores(doubt=0.0)

    traces = []
    for seed in range(3):
        for clumsy in (False, True):
            ticks = 60 if request.param == "peg" and clumsy else contract.horizon_ticks
            policy = Expert(clumsy and request.param == "lane")
            ended = run_rollout(contract, plant, (about, policy), RolloutKey("n", seed), ticks=ticks)
            traces.append(Trace(ended[0], "", "", contract.sha256, *ended[1:]))
    return contract, plant, traces


def test_second_judge_agrees_with_the_task(driven: tuple[Contract, MujocoPlant, list[Trace]]) -> None:
    contract, plant, traces = driven
    assert contract.simulation is not None
    for trace in traces:
        plant.show(trace.scene[-1].astype(float))
        truth = np.vstack([trace.rows["privileged"], plant.truth()])
        judge = JUDGES[contract.simulation.task]
        assert judge(contract, truth) == trace.result.success
        if trace.result.success:
            assert not judge(contract, truth[: len(truth) // 2])


def test_second_judge_of_the_lane_sees_that_a_base_was_put_back() -> None:
    angle = np.linspace(0, 2 * np.pi, 300)
    radius = 6.0
    truth = np.stack(
        [
            radius * np.cos(angle),
            radius * np.sin(angle),
            np.sin((angle + np.pi / 2) / 2),
            np.cos((angle + np.pi / 2) / 2),
        ],
        axis=1,
    )
    assert JUDGES["lane"](LANE, truth)
    assert not JUDGES["lane"](LANE, truth[:280])
    moved = truth.copy()
    moved[150:, :2] *= 1 + 0.15 / radius
    assert not JUDGES["lane"](LANE, moved)
    turned = truth.copy()
    turned[150:, 2:] = np.roll(turned[150:, 2:], 40, axis=0)
    assert not JUDGES["lane"](LANE, turned)


def test_limit_of_novelty_rises_only_where_something_is_disturbed() -> None:
    rows = RowLayout(PEG).new(100)
    rows["novelty"] = np.arange(100) / 25
    rows["privileged"], rows["policy_action"] = [0.0, 0.0, 0.03], [0.0, 0.0, 0.24]
    plain = usual([rows], [rows], PEG, TASKS["peg"](PEG), disturbed=False)
    disturbed = usual([rows], [rows], PEG, TASKS["peg"](PEG), disturbed=True)
    assert (plain.novelty, plain.wrong) == (1.0, 1.0)
    assert disturbed.novelty == pytest.approx(3.76, abs=0.05)
    assert usual([], [], PEG, TASKS["peg"](PEG), disturbed=True) == Usual()


@pytest.mark.parametrize(
    ("there", "label", "lesson"),
    [
        ([0.01, 0.0, 0.08], [0.24, 0.24, 0.24], Lesson.WRONG),
        ([0.01, 0.0, 0.08], None, Lesson.RIGHT),
        ([-0.08, 0.0, 0.08], None, Lesson.COARSE),
    ],
)
def test_nearest_labels_say_whether_it_was_taught_wrongly_or_too_little(
    there: list[float], label: list[float] | None, lesson: Lesson
) -> None:
    task, frames = TASKS["peg"](PEG), RowLayout(PEG).new(20)
    frames["observation"], frames["label_source"], frames["privileged"] = 0.0, 1, there
    frames["expert_action"] = expert_actions(frames, PEG, task) if label is None else label
    taught = taught_by([TrainingEpisode(frames, success=True, demonstration=True)], PEG, task)
    decided = RowLayout(PEG).new(3)
    decided["observation"], decided["privileged"], decided["policy_action"] = 0.0, [0.01, 0.0, 0.08], 0.24
    assert taught is not None
    assert taught.lesson(decided, wrong_decisions(decided, PEG, task), PEG, task) is lesson
    frames["privileged"] = np.nan
    assert taught_by([TrainingEpisode(frames, success=True, demonstration=True)], PEG, task) is None


@pytest.mark.parametrize(
    ("outcomes", "expected"), [((1, 1), (2, 2)), ((0,), (0, 1)), ((1, 0, 1), (2, 3)), ((1, 0, 0), (1, 3))]
)
def test_reruns_stop_when_most_agree_or_the_exact_one_fails(
    outcomes: tuple[int, ...], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    laboratory, world = Laboratory(PEG, contract_path("peg"), seeing()), World(PEG, Perturbation())
    first = laboratory.run(RolloutKey("n", FIRST), world, ticks=60)
    said: list[int] = []

    def run(*_: object, repeat: int, **__: object) -> Any:
        said.append(repeat)
        return replace(first[0], success=bool(outcomes[repeat])), *first[1:]

    monkeypatch.setattr(laboratory, "run", run)
    share = laboratory.repeated(RolloutKey("n", FIRST), world, ticks=60)
    assert (share.healed, share.of) == expected
    assert said == list(range(len(outcomes)))
    assert str(Share(1, 3, 0, 0, 0)) == "1 of 3"
    assert REPEATS == 3


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one policy that fails, judged on one panel."""
    folder = tmp_path_factory.mktemp("diagnosed")
    weak_policy("peg", folder / "policies" / "pi_000")
    with PanelRunner(contract_path("peg"), workers=1) as runner:
        panel = small_panel(1, nominal={}, delayed={"observation_delay_s": 0.1})
        runner.run(panel, folder / "policies" / "pi_000", folder / "panels" / "pi_000" / "small")
    shutil.copy(contract_path("peg"), folder / "contract.yaml")
    result = {"schema": "dagger_ros.result/2", "recommended": {"round": 0, "policy": "pi_000"}}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_diagnose_writes_what_it_finds_beside_the_rollouts(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    panel = run_folder / "panels" / "pi_000" / "small"
    main(["diagnose", str(run_folder), "--workers", "1"])
    said = capsys.readouterr().out
    written = Diagnosis.read(panel)
    assert [r.key for r in written.rollouts] == failed_rollouts(panel)
    assert len(written.rollouts) == 2
    assert sum(written.causes.values()) == 2
    assert (written.policy, written.panel, written.contract_sha256) == ("pi_000", "small", PEG.sha256)
    for rollout in written.rollouts:
        assert f"{rollout.key}  {rollout.failure}  {rollout.cause}" in said
    content = json.loads((panel / "diagnosis.json").read_text())
    assert content["schema"] == 1
    assert content["causes"] == written.causes
    assert set(content["rollouts"][0]) == {f.name for f in fields(RolloutDiagnosis)}


def test_one_rollout_is_shown_in_full_and_nothing_is_written(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    panel = run_folder / "panels" / "pi_000" / "small"
    (panel / "diagnosis.json").unlink(missing_ok=True)
    key = failed_rollouts(panel)[1]
    policy = run_folder / "policies" / "pi_000"
    arguments = ["--policy", str(policy), "--contract", str(contract_path("peg")), "--workers", "1"]
    main(["diagnose", str(panel), *arguments, "--rollout", str(key)])
    said = capsys.readouterr().out
    assert str(key) in said
    assert "the expert from the start: 1 of 1 succeed" in said
    assert "without timing: 0 of 1 succeed" in said
    assert not (panel / "diagnosis.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}/none"], r"result.json: expected the result of a run here"),
        (["{run}", "--policy", "pi_007"], r"policy: expected one that was judged in .* \(pi_000\), got pi_007"),
        (["{run}", "--panel", "nominal"], r"panel: expected one of small in .*, got nominal"),
        (["{run}", "--rollout", "7"], r"rollout: expected CONDITION-SEED, as in nominal-1000000004, got '7'"),
        (["{run}", "--rollout", "nominal-7"], r"expected rollouts that failed \(nominal-.*\), got nominal-7"),
        (["{run}", "--workers", "0"], r"workers: expected a whole number >= 1, got 0"),
        (["{panel}"], r"expected --policy, what was judged, and --contract"),
        (["{panel}", "--policy", "x", "--contract", "{lane}"], r"found small \(.*\) under"),
        (["{panel}", "--policy", "{other}", "--contract", "{peg}"], r"expected the policy that was judged, pi_000"),
    ],
)
def test_what_cannot_be_diagnosed_is_refused_in_words(
    arguments: list[str], message: str, run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {
        "run": run_folder,
        "panel": run_folder / "panels" / "pi_000" / "small",
        "other": weak_policy("peg", tmp_path / "other", seed=1),
        **{task: contract_path(task) for task in ("peg", "lane")},
    }
    with pytest.raises(SystemExit) as ended:
        main(["diagnose", *(text.format(**places) for text in arguments)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("dagger-ros diagnose: ")
    assert "Traceback" not in said
    assert re.search(message, said), said


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "expected what dagger-ros diagnose writes"), ('{"schema": 2}', "Diagnose again"), ("{", "Diagnose again")],
)
def test_damaged_diagnosis_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DaggerError, match=r"diagnosis\.json: expected"):
        Diagnosis.read(tmp_path)
    (tmp_path / "diagnosis.json").write_text(text)
    with pytest.raises(DaggerError, match=message):
        Diagnosis.read(tmp_path)


def test_nothing_to_diagnose_is_said(tmp_path: Path) -> None:
    found = Diagnosis("pi_000", "nominal", PEG.sha256, ())
    found.write(tmp_path)
    assert Diagnosis.read(tmp_path) == found
    assert found.causes == {}


def test_diagnose_refuses_rollouts_of_another_policy(run_folder: Path, tmp_path: Path) -> None:
    other = weak_policy("peg", tmp_path / "other", seed=1)
    with pytest.raises(DaggerError, match="evaluate this one first"):
        diagnose(contract_path("peg"), other, run_folder / "panels" / "pi_000" / "small", workers=1)
    assert trace_path(run_folder / "panels" / "pi_000" / "small", RolloutKey("nominal", 1)).parent.is_dir()
