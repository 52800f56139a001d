"""How fast recorded decisions become rows, and a dataset becomes training batches.

    .venv/bin/python benchmarks/frames.py [--frames 30000] [--json FILE]

Writes one bag of decisions of `peg` (24 observations), reads it back as rows, and beside it as `rosbags` gives it:
one Python message for each. Then exports it and draws batches of 256 from its columns.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test"))

import numpy as np
from rosbags.rosbag2 import Reader

from conftest import contract_path
from dagger_ros.contract import Label, Mode, RowLayout, load_contract, read_decision
from dagger_ros.dataset import (
    EpisodeInfo,
    finish_round,
    read_rows,
    write_rows,
)
from dagger_ros.dataset.bag import DECISION, typestore_of
from dagger_ros.dataset.export import ExportSettings, export_lerobot, load_columns
from dagger_ros.nodes.share import message_definition

BATCH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=30_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.frames)
    for name, value in result.items():
        print(f"{name:40} {value:14.1f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(run: Path, frames: int) -> dict[str, float]:
    contract = load_contract(contract_path("peg"))
    layout = RowLayout(contract)
    rng = np.random.default_rng(0)
    rows = layout.new(frames)
    for name in ("observation", "privileged", "expert_action", "requested_action", "executed_action"):
        rows[name] = rng.normal(size=rows[name].shape)
    rows["time_ns"] = rows["monotonic_ns"] = np.arange(frames) * contract.timing.period_ns
    rows["stamp_ns"] = rows["receive_ns"] = rows["time_ns"][:, None]
    rows["tick"], rows["mode"], rows["label_source"] = np.arange(frames), Mode.EXPERT, Label.EXPERT
    rows["operator_id"], rows["round"], rows["episode"], rows["seed"] = b"bench", 0, 0, 1
    text = contract_path("peg").read_text()
    info = EpisodeInfo(
        0, 0, 1, "bc", contract.sha256, "", "", "bench", 0, int(rows["time_ns"][-1]), True, "", 1.0, {}, []
    )
    definition = message_definition(DECISION)
    folder = run / "rounds/000/episodes/000000"
    write_rows(folder, rows, layout, [], {}, info, contract_text=text, definitions={DECISION: definition})
    started = time.perf_counter()
    assert len(read_rows(folder / "bag", layout)) == frames
    ours = frames / (time.perf_counter() - started)
    theirs = frames / plain(folder / "bag", layout, definition)
    finish_round(run / "rounds/000", contract)
    shutil.copy(contract_path("peg"), run / "contract.yaml")
    started = time.perf_counter()
    export_lerobot(run, contract_path("peg"), run / "dataset", ExportSettings())
    exported = frames / (time.perf_counter() - started)
    started = time.perf_counter()
    columns = load_columns(run / "dataset", ["observation.state", "action"])
    order = rng.permutation(frames)
    drawn = 0
    for begin in range(0, frames, BATCH):
        chosen = order[begin : begin + BATCH]
        drawn += len(columns["observation.state"][chosen]) and len(columns["action"][chosen])
    batches = drawn / (time.perf_counter() - started)
    return {
        "bag to rows, frames/s": ours,
        "the same by rosbags messages, frames/s": theirs,
        "ratio": ours / theirs,
        "rows to LeRobotDataset, frames/s": exported,
        "dataset to batches of 256, frames/s": batches,
    }


def plain(bag: Path, layout: RowLayout, definition: str) -> float:
    """Seconds that it takes with one Python object for each message."""
    store = typestore_of(((DECISION, definition),))
    started = time.perf_counter()
    with Reader(bag) as reader:
        rows = layout.new(reader.message_count)
        for i, (_, _, data) in enumerate(reader.messages()):
            read_decision(store.deserialize_cdr(data, DECISION), rows[i])
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
