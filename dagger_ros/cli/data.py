"""The verbs about what was recorded: `inspect`, `verify`, `recover`, `merge`, `export`."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dagger_ros.cli.tables import counted, tables
from dagger_ros.cli.verbs import Verbs
from dagger_ros.contract import DaggerError, load_contract

__all__ = ["add_verbs"]


def add_verbs(verbs: Verbs) -> None:
    """Adds them to the command line."""
    inspect = verbs.add_parser("inspect", help="show what is in the rounds of a run: labels, streams, what is new")
    inspect.add_argument("run_folder", metavar="run", type=Path, help="folder with contract.yaml and rounds/")
    inspect.add_argument("--contract", type=Path, help="task contract (default: contract.yaml of the run)")
    inspect.set_defaults(run=_inspect)

    verify = verbs.add_parser("verify", help="read again what a run left, and compare it with its hashes and counts")
    verify.add_argument("run_folder", metavar="run", type=Path, help="folder of the run")
    verify.add_argument(
        "--dataset",
        metavar="FOLDER",
        type=Path,
        action="append",
        default=[],
        help="a LeRobotDataset that was exported from it, besides dataset/ of the run",
    )
    verify.set_defaults(run=_verify)

    recover = verbs.add_parser("recover", help="make episodes whole whose recorder was killed, in place")
    recover.add_argument("folder", type=Path, help="of a run, or of a round")
    recover.set_defaults(run=_recover)

    merge = verbs.add_parser(
        "merge", help="put rounds of several runs, such as those of two robots, together into one run"
    )
    merge.add_argument("sources", metavar="source", type=Path, nargs="+", help="folder of a run, or of a round")
    merge.add_argument("--out", type=Path, required=True, help="folder of the new run; new or empty")
    merge.add_argument(
        "--contract",
        type=Path,
        help="task contract of the new run, and of what learns from it (default: that of the first source)",
    )
    merge.add_argument("--round", type=int, help="number that every round gets (default: the one it has)")
    merge.set_defaults(run=_merge)

    export = verbs.add_parser(
        "export", help="write the rounds of a run as a dataset: LeRobotDataset v3.0, robomimic, CSV, Parquet"
    )
    export.add_argument("run_folder", metavar="run", type=Path, help="folder with contract.yaml and rounds/")
    export.add_argument(
        "--format", default="lerobot", choices=("lerobot", "robomimic", "csv", "parquet"), help="default: lerobot"
    )
    export.add_argument("--out", type=Path, help="lerobot: folder (default: dataset/ of the run); else: the file")
    export.add_argument(
        "--view",
        default="labels",
        choices=("labels", "frames"),
        help="labels: what is imitated, the frames with an expert's label (default); frames: all of them",
    )
    export.add_argument(
        "--split", default="train", choices=("train", "validation", "stress"), help="of which episodes (default: train)"
    )
    export.add_argument("--codec", default="h264", choices=("h264", "av1"), help="of the videos (default: h264)")
    export.set_defaults(run=_export)


def _inspect(options: argparse.Namespace) -> None:
    from dagger_ros.dataset import STAGES, Round, StreamQuality, inspect_rounds, percentiles_s, round_folders
    from dagger_ros.evaluation import wilson

    def alone(manifest: Round) -> str:
        """Episodes of a policy that succeeded without the expert, of those that it drove in."""
        driven = [e for e in manifest.episodes if e.policy_ticks or e.help_requests]
        if not driven:
            return "-"
        successes = sum(e.success and not e.expert_ticks for e in driven)
        low, high = wilson(successes, len(driven))
        return f"{successes} of {len(driven)} ({100 * low:.0f}-{100 * high:.0f} %)"

    folders = round_folders(options.run_folder)
    contract = load_contract(options.contract or options.run_folder / "contract.yaml")
    views = list(inspect_rounds(folders, contract))
    table = tables()
    table(
        f"{contract.name}: rounds; alone: of the episodes in which a policy drove, those that succeeded without the "
        "expert (95 % interval); frames: ticks at which nothing was stale; new: further from every earlier tick than "
        "95 % of those from another episode",
        "round, rule, policy, operator, episodes, succeeded, alone, seconds, ticks, frames, new ticks",
        [
            (
                f"{v.manifest.round:03d}",
                v.manifest.rule,
                v.manifest.policy or "-",
                v.manifest.operator_id or "-",
                len(v.manifest.episodes),
                sum(e.success for e in v.manifest.episodes),
                alone(v.manifest),
                round(v.seconds, 1),
                sum(v.labels.values()),
                v.frames,
                "-" if v.new_share is None else f"{100 * v.new_share:.0f} %",
            )
            for v in views
        ],
    )
    table(
        "labels",
        "round, of the expert, of the policy, none, takeovers, why, help requests, splits",
        [
            (
                f"{v.manifest.round:03d}",
                *(v.labels[source] for source in ("expert", "policy", "none")),
                v.manifest.takeovers,
                counted(
                    reason for e in v.manifest.episodes for reason, n in e.takeover_reasons.items() for _ in range(n)
                ),
                v.manifest.help_requests,
                counted(e.split for e in v.manifest.episodes),
            )
            for v in views
        ],
    )
    streams = []
    for parts in zip(*(v.streams for v in views), strict=True):
        slowest = min(range(len(views)), key=lambda k: parts[k].rate_hz)
        oldest = max(range(len(views)), key=lambda k: np.nan_to_num(parts[k].ages_s[-1], nan=np.inf))
        limit = contract.streams.get(parts[0].name) or contract.cameras[parts[0].name]
        in_round = ", ".join(f"{views[k].manifest.round:03d}" for k in (slowest, oldest))
        rates = round(parts[slowest].rate_hz, 1), limit.rate_hz
        ages = *(round(age, 4) for age in parts[oldest].ages_s), limit.max_age_s
        counts = StreamQuality.together([part.quality for part in parts])
        streams.append((parts[0].name, in_round, *rates, *ages, counts.gaps, counts.missing, counts.stale_ticks))
    table(
        "streams: rate in the round where they came slowest, ages in that where they were oldest; gaps and stale ticks "
        "of all rounds",
        "stream, rounds, Hz, expected Hz, median age s, 99 % age s, largest age s, allowed s, gaps, missing, "
        "stale ticks",
        streams,
    )
    timing = [
        (stage, about, *(round(1e3 * t, 3) for t in percentiles_s(np.concatenate([v.timing[stage] for v in views]))))
        for stage, about in STAGES.items()
    ]
    if any(np.isfinite(v.timing["gate"]).any() for v in views):
        table("timing of all rounds", "stage, what, median ms, 99 % ms, largest ms", timing)
    else:
        print("timing: not measured (in lockstep, by an earlier version, or where a bag was imported from)")


def _verify(options: argparse.Namespace) -> None:
    from dagger_ros.verify import verify

    problems = []
    for path, problem in itertools.chain(verify(options.run_folder), _verified(options.run_folder, options.dataset)):
        print(f"{path}: {'not as it was written' if problem else 'ok'}", flush=True)
        problems.append(problem)
    wrong = list(filter(None, problems))
    print(f"{len(problems) - len(wrong)} of {len(problems)} parts are as they were written")
    if wrong:
        raise DaggerError("\n".join(dict.fromkeys(wrong)))


def _verified(run: Path, datasets: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each dataset, and what is wrong with it; empty: nothing."""
    from dagger_ros.dataset.export import verify_lerobot

    for dataset in datasets:
        try:
            verify_lerobot(run, run / "contract.yaml", dataset)
        except DaggerError as error:
            yield dataset, str(error)
        else:
            yield dataset, ""


def _recover(options: argparse.Namespace) -> None:
    from dagger_ros.dataset import recover_episode, unfinished_episodes, unlisted_rounds

    if not options.folder.is_dir():
        raise DaggerError(f"{options.folder}: expected the folder of a run or a round; there is none")
    if not any(options.folder.rglob("episodes")):
        raise DaggerError(f"{options.folder}: expected the folder of a run or a round, with episodes; there are none")
    unfinished = unfinished_episodes(options.folder)
    changed: set[Path] = set()
    problems = []
    for folder in unfinished:
        try:
            done = recover_episode(folder)
        except (DaggerError, OSError) as error:
            problems.append(str(error))
            continue
        changed.add(folder.parent.parent)
        lost = f"; {done.lost_bytes} bytes behind byte {done.whole_bytes} are lost" if done.lost_bytes else ""
        print(f"{folder}: {sum(done.info.messages.values())} messages, {done.seconds:.1f} s{lost}")
    changed.update(unlisted_rounds(options.folder))
    for folder in sorted(changed):
        try:
            print(f"{folder}: {_written_anew(folder)}")
        except (DaggerError, OSError) as error:
            problems.append(str(error))
    if not unfinished and not changed:
        print(
            f"{options.folder}: nothing to recover, every episode has its episode.json; `dagger-ros verify` reads more"
        )
    if problems:
        raise DaggerError("\n".join(problems))


def _written_anew(folder: Path) -> str:
    """Writes the manifest of a round, and says what is in it."""
    from dagger_ros.dataset import episode_folder, finish_round, manifest_sha256, recorded_episodes
    from dagger_ros.dataset.about import read_about
    from dagger_ros.dataset.episode import BAG

    was_finished = bool(manifest_sha256(folder))
    bag = episode_folder(folder, recorded_episodes(folder)[0]) / BAG
    count = len(finish_round(folder, read_about(bag).contract).episodes)
    trained = "; a policy that was trained on the manifest before does not know of them" if was_finished else ""
    return f"{count} episodes in its manifest{trained}"


def _merge(options: argparse.Namespace) -> None:
    from dagger_ros.dataset import merge_rounds

    if options.round is not None and options.round < 0:
        raise DaggerError(f"round: expected a whole number >= 0, got {options.round}")
    rounds = merge_rounds(options.sources, options.out, contract_path=options.contract, round_index=options.round)
    tables()(
        f"{options.out}",
        "round, rule, robots, runs, operators, episodes, labels",
        [
            (
                f"{r.round:03d}",
                r.rule,
                r.robot_body,
                counted(e.source.run for e in r.episodes if e.source),
                r.operator_id or "-",
                len(r.episodes),
                r.labels,
            )
            for r in rounds
        ],
    )


def _export(options: argparse.Namespace) -> None:
    from dagger_ros.dataset import View, read_frames, round_folders
    from dagger_ros.dataset.export import ExportSettings, export_file, export_lerobot

    if options.format != "lerobot":
        if options.out is None:
            raise DaggerError(f"out: expected the name of a file for format {options.format}, got nothing")
        contract, folders = load_contract(options.run_folder / "contract.yaml"), round_folders(options.run_folder)
        episodes = read_frames(folders, contract, (options.split,))
        frames = export_file(options.out, options.format, episodes, contract, View(options.view))
        print(f"{options.out}: {frames} frames, view {options.view}, split {options.split}")
        return
    out = options.out or options.run_folder / "dataset"
    settings = ExportSettings(View(options.view), options.split, options.codec)
    rounds = export_lerobot(options.run_folder, options.run_folder / "contract.yaml", out, settings)
    tables()(
        f"{out}: view {options.view}, split {options.split}",
        "round, episodes, frames, not in the view, not whole, gaps in streams, files",
        [
            (
                f"{r['round']:03d}",
                r["episodes"],
                r["frames"],
                r["left_out"]["not in the view"],
                r["left_out"]["not whole"],
                sum(s["gaps"] for s in r["streams"].values()),
                len(r["files"]),
            )
            for r in rounds
        ],
    )
