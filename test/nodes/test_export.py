import io
import json
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.mujoco]

import av
import h5py
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from PIL import Image

from conftest import contract_path
from dagger_ros.cli import main
from dagger_ros.contract import DaggerError, Label, RowLayout, load_contract
from dagger_ros.dataset import (
    RecordedTopic,
    View,
    finish_round,
    inspect_rounds,
    read_episode,
    read_frames,
    read_rows,
    write_rows,
)
from dagger_ros.dataset.bag import DECISION, typestore_of
from dagger_ros.dataset.export import ExportSettings, export_file, export_lerobot, load_columns, verify_lerobot
from dagger_ros.dataset.export.video import write_video
from dagger_ros.nodes.lockstep import LockstepGraph
from dagger_ros.nodes.share import message_definition

_STATISTICS = ("min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of demonstrations."""
    run = tmp_path_factory.mktemp("run")
    shutil.copy(contract_path("peg"), run / "contract.yaml")
    for k in range(2):
        folder = run / f"rounds/{k:03d}"
        with LockstepGraph(contract_path("peg"), rule="bc", round_index=k, out=folder) as graph:
            for seed in range(2):
                graph.run_episode(10 * k + seed)
        finish_round(folder, load_contract(contract_path("peg")))
    return run


@pytest.fixture
def dataset(run: Path, tmp_path: Path) -> Path:
    export_lerobot(run, run / "contract.yaml", tmp_path / "dataset", ExportSettings())
    return tmp_path / "dataset"


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def check_conforms(root: Path) -> None:
    """Every file, key and type that LeRobot needs, after what was found out about it (not by its code)."""
    info = json.loads((root / "meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0"
    assert isinstance(info["fps"], int)
    assert info["total_tasks"] == 1
    data = pa.concat_tables(pq.read_table(f) for f in sorted((root / "data").glob("*/*.parquet")))
    episodes = pa.concat_tables(pq.read_table(f) for f in sorted((root / "meta/episodes").glob("*/*.parquet")))
    features = info["features"]
    videos = [key for key, f in features.items() if f["dtype"] == "video"]
    assert set(data.column_names) == set(features) - set(videos)
    for name, feature in features.items():
        assert "/" not in name
        if name in videos:
            continue
        kind = data.schema.field(name).type
        if feature["shape"] != [1]:
            assert kind.list_size == feature["shape"][0]
            kind = kind.value_type
        assert str(kind) == {"float32": "float", "float64": "double"}.get(feature["dtype"], feature["dtype"])
        assert feature["names"] is None or len(feature["names"]) == feature["shape"][0]
    assert data["index"].to_pylist() == list(range(info["total_frames"]))
    assert episodes["episode_index"].to_pylist() == list(range(info["total_episodes"]))
    numbers = [name for name, f in features.items() if f["dtype"] != "string"]
    stats = json.loads((root / "meta/stats.json").read_text())
    assert set(stats) == set(numbers)
    for row in episodes.to_pylist():
        part = data.slice(row["dataset_from_index"], row["length"])
        assert set(part["episode_index"].to_pylist()) == {row["episode_index"]}
        assert part["frame_index"].to_pylist() == list(range(row["length"]))
        np.testing.assert_allclose(part["timestamp"].to_numpy(), np.arange(row["length"]) / info["fps"], atol=1e-6)
        file = f"data/chunk-{row['data/chunk_index']:03d}/file-{row['data/file_index']:03d}.parquet"
        assert row["episode_index"] in pq.read_table(root / file)["episode_index"].to_pylist()
        for name in numbers:
            for statistic in _STATISTICS:
                value = np.array(row[f"stats/{name}/{statistic}"])
                shape = features[name]["shape"] if name not in videos else [3, 1, 1]
                assert list(value.shape) == ([1] if statistic == "count" else shape), (name, statistic)
    tasks = pq.read_table(root / "meta/tasks.parquet")
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]
    for key in videos:
        for row in episodes.to_pylist():
            where = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
            with av.open(str(root / info["video_path"].format(video_key=key, **where))) as video:
                times = [float(frame.time) for frame in video.decode(video=0)]
            np.testing.assert_allclose(times, np.arange(row["length"]) / info["fps"], atol=1e-4)


def test_dataset_has_every_file_key_and_type_that_lerobot_needs(dataset: Path) -> None:
    check_conforms(dataset)


def test_dataset_loads_in_unmodified_lerobot(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="lerobot is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = datasets.LeRobotDataset("local/dagger", root=dataset, video_backend="pyav")
    assert len(loaded) == len(load_columns(dataset, ["index"])["index"])
    assert loaded[0]["action"].shape == (3,)


def test_dataset_holds_the_labels_of_the_bags(run: Path, dataset: Path) -> None:
    contract = load_contract(run / "contract.yaml")
    rows = [read_rows(bag, RowLayout(contract)) for bag in sorted(run.glob("rounds/*/episodes/*/bag"))]
    labelled = np.concatenate([r[r["label_source"] == Label.EXPERT] for r in rows])
    columns = load_columns(dataset, ["observation.state", "action", "dagger.executed_action", "dagger.seed"])
    np.testing.assert_array_equal(columns["observation.state"], labelled["observation"].astype(np.float32))
    np.testing.assert_array_equal(columns["action"], labelled["expert_action"].astype(np.float32))
    np.testing.assert_array_equal(columns["dagger.executed_action"], labelled["executed_action"])
    np.testing.assert_array_equal(columns["dagger.seed"], labelled["seed"])


def test_columns_that_are_not_there_are_said(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DaggerError, match=r"expected columns of observation.state, action, .*; got observation.stat$"):
        load_columns(dataset, ["action", "observation.stat"])
    with pytest.raises(DaggerError, match="expected the folder of a dataset, with data/; there is none"):
        load_columns(tmp_path / "nothing", ["action"])


def test_added_round_gives_the_bytes_of_an_export_of_both_and_leaves_old_files_alone(run: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(run / "rounds/000", first / "rounds/000")
    out = tmp_path / "dataset"
    export_lerobot(first, run / "contract.yaml", out, ExportSettings())
    old = {p: p.stat().st_ino for p in out.rglob("data/*/*.parquet")}
    export_lerobot(run, run / "contract.yaml", out, ExportSettings())
    assert {p: p.stat().st_ino for p in old} == old
    export_lerobot(run, run / "contract.yaml", tmp_path / "again", ExportSettings())
    assert contents(out) == contents(tmp_path / "again")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "dataset", "first"]
    verify_lerobot(run, run / "contract.yaml", out)


def test_dataset_behind_a_link_and_in_the_current_folder_is_added_to(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "first"
    shutil.copytree(run / "rounds/000", first / "rounds/000")
    out, link = tmp_path / "dataset", tmp_path / "link"
    export_lerobot(first, run / "contract.yaml", out, ExportSettings())
    link.symlink_to(out)
    export_lerobot(run, run / "contract.yaml", link, ExportSettings())
    assert link.is_symlink()
    verify_lerobot(run, run / "contract.yaml", out)
    monkeypatch.chdir(out)
    assert len(export_lerobot(run, run / "contract.yaml", Path(), ExportSettings())) == 2


def test_edited_dataset_is_named_and_not_added_to(run: Path, dataset: Path) -> None:
    path = dataset / "data/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DaggerError, match=r"file-000.parquet: expected what the bags give; it differs"):
        verify_lerobot(run, run / "contract.yaml", dataset)
    with pytest.raises(DaggerError, match=r"file-000.parquet: expected the file that was exported; it is gone"):
        export_lerobot(run, run / "contract.yaml", dataset, ExportSettings())


def test_dataset_that_is_behind_its_run_is_whole(run: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(run / "rounds/000", first / "rounds/000")
    export_lerobot(first, run / "contract.yaml", tmp_path / "dataset", ExportSettings())
    verify_lerobot(run, run / "contract.yaml", tmp_path / "dataset")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"features": 5}'])
def test_table_of_contents_that_was_edited_is_named(run: Path, dataset: Path, text: str) -> None:
    (dataset / "meta/info.json").write_text(text)
    with pytest.raises(
        DaggerError, match=r"meta/info.json: expected the file that was exported; it is gone or changed"
    ):
        export_lerobot(run, run / "contract.yaml", dataset, ExportSettings())
    with pytest.raises(DaggerError, match=r"meta/info.json: expected what the bags give; it differs"):
        verify_lerobot(run, run / "contract.yaml", dataset)


@pytest.mark.parametrize(
    "change",
    [
        {"view": "everything"},
        {"rounds": [{}]},
        {"rounds": 1},
        {"schema": "x"},
        {"codec": "mpeg1"},
        {"split": "all"},
        {"rounds": [{"manifest_sha256": "", "files": {}, "frames": "1", "episodes": 1}]},
    ],
)
def test_description_that_was_edited_is_refused_in_words(run: Path, dataset: Path, change: dict[str, object]) -> None:
    path = dataset / "meta/dagger_ros.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    for use in (
        lambda: verify_lerobot(run, run / "contract.yaml", dataset),
        lambda: export_lerobot(run, run / "contract.yaml", dataset, ExportSettings()),
    ):
        with pytest.raises(DaggerError, match="expected a dataset of dagger-ros export"):
            use()


def test_dataset_of_another_view_or_with_a_path_out_of_its_folder_is_refused(run: Path, dataset: Path) -> None:
    with pytest.raises(DaggerError, match="view: it has labels, you asked for"):
        export_lerobot(run, run / "contract.yaml", dataset, ExportSettings(View.FRAMES))
    with pytest.raises(DaggerError, match="there are none in 2 rounds"):
        export_lerobot(run, run / "contract.yaml", dataset.parent / "other", ExportSettings(split="stress"))
    about = json.loads((dataset / "meta/dagger_ros.json").read_text())
    about["rounds"][0]["files"] = {"../../secret": ""}
    (dataset / "meta/dagger_ros.json").write_text(json.dumps(about))
    with pytest.raises(DaggerError, match="which leaves it"):
        export_lerobot(run, run / "contract.yaml", dataset, ExportSettings())


def jpeg(value: int) -> bytes:
    pixels = np.full((48, 64, 3), value, np.uint8)
    pixels[:, :, 1] = np.arange(64, dtype=np.uint8) * 3
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=95)
    return data.getvalue()


def run_with_a_camera(run: Path, out: Path, missing: range, picture: Callable[[int], bytes] = jpeg) -> Path:
    """The first demonstration, with a picture at each tick but some."""
    text = yaml.safe_load((run / "contract.yaml").read_text())
    text["cameras"] = {
        "wrist": {
            "topic": "wrist/image",
            "type": "sensor_msgs/msg/CompressedImage",
            "width": 64,
            "height": 48,
            "frame": "wrist",
            "rate_hz": 20.0,
            "max_age_s": 0.1,
        }
    }
    text["simulation"]["model"] = str(contract_path("peg").parent / text["simulation"]["model"])
    out.mkdir()
    (out / "contract.yaml").write_text(yaml.safe_dump(text))
    contract = load_contract(out / "contract.yaml")
    layout, source = RowLayout(contract), run / "rounds/000/episodes/000000"
    rows = read_rows(source / "bag", RowLayout(load_contract(run / "contract.yaml")))
    store = typestore_of(())
    image, header, time = (
        store.types[t]
        for t in ("sensor_msgs/msg/CompressedImage", "std_msgs/msg/Header", "builtin_interfaces/msg/Time")
    )
    messages = []
    for i, now_ns in enumerate(rows["time_ns"].tolist()):
        if i not in missing:
            stamp = time(now_ns // 10**9, now_ns % 10**9)
            data = np.frombuffer(picture(100 + i), np.uint8)
            message = image(header(stamp, "wrist"), "jpeg", data)
            cdr = bytes(store.serialize_cdr(message, "sensor_msgs/msg/CompressedImage"))
            messages.append(("wrist/image", now_ns, cdr))
    info = replace(read_episode(source), contract_sha256=contract.sha256)
    assert asdict(info)["round"] == 0
    write_rows(
        out / "rounds/000/episodes/000000",
        rows,
        layout,
        messages,
        {"wrist/image": RecordedTopic("sensor_msgs/msg/CompressedImage", reliable=False, latched=False)},
        info,
        contract_text=(out / "contract.yaml").read_text(),
        definitions={DECISION: message_definition(DECISION)},
    )
    finish_round(out / "rounds/000", contract)
    return out


def test_pictures_come_back_within_the_error_of_the_codec(run: Path, tmp_path: Path) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(0))
    out = tmp_path / "dataset"
    export_lerobot(with_camera, with_camera / "contract.yaml", out, ExportSettings())
    check_conforms(out)
    verify_lerobot(with_camera, with_camera / "contract.yaml", out)
    (video,) = out.glob("videos/*/*/*.mp4")
    with av.open(str(video)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for i, frame in enumerate(frames):
        recorded = np.asarray(Image.open(io.BytesIO(jpeg(100 + i))))
        assert np.abs(frame.astype(int) - recorded).mean() < 3.0


def test_pictures_load_in_unmodified_lerobot(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("lerobot.datasets.lerobot_dataset", reason="lerobot is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(10, 16))
    export_lerobot(with_camera, with_camera / "contract.yaml", tmp_path / "dataset", ExportSettings())
    loaded = datasets.LeRobotDataset("local/dagger", root=tmp_path / "dataset")  # the decoder that it chooses itself
    assert loaded.num_episodes == 2
    # Until the next picture comes, that of tick 9 is the newest; ticks 12 to 15 are no frames.
    for frame, picture in ((0, 0), (9, 9), (11, 9), (12, 16), (len(loaded) - 1, len(loaded) + 3)):
        pixels = loaded[frame]["observation.images.wrist"].numpy().transpose(1, 2, 0) * 255
        recorded = np.asarray(Image.open(io.BytesIO(jpeg(100 + picture))))
        assert np.abs(pixels - recorded).mean() < 3.0


def test_size_that_the_encoder_does_not_take_is_said(tmp_path: Path) -> None:
    pictures = [np.zeros((47, 63, 3), np.uint8)]
    path = tmp_path / "observation.images.wrist/chunk-000/file-000.mp4"
    path.parent.mkdir(parents=True)
    write_video(path, pictures, 20, "h264")
    with pytest.raises(
        DaggerError, match=r"images.wrist: expected pictures that libsvtav1 makes a video of; .* another"
    ):
        write_video(path, pictures, 20, "av1")


def test_video_of_av1_leaves_the_scheduling_of_the_process_as_it_was(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    write_video(tmp_path / "a.mp4", [np.zeros((64, 64, 3), np.uint8)] * 4, 20, "av1")
    assert (os.sched_getscheduler(0), os.sched_getparam(0)) == before


def test_video_of_av1_says_nothing_on_the_terminal(
    run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(0))
    export_lerobot(with_camera, with_camera / "contract.yaml", tmp_path / "dataset", ExportSettings(codec="av1"))
    check_conforms(tmp_path / "dataset")
    assert capfd.readouterr() == ("", "")


def test_tick_without_a_fresh_picture_is_no_frame_and_is_counted(run: Path, tmp_path: Path) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(10, 16))
    contract = load_contract(with_camera / "contract.yaml")
    (episode,) = read_frames([with_camera / "rounds/000"], contract)
    # The picture of tick 9 is 0.1 s old at tick 11, as old as it may be.
    assert np.flatnonzero(~episode.whole).tolist() == [12, 13, 14, 15]
    assert episode.quality["wrist"].stale_ticks == 4
    assert (episode.quality["wrist"].gaps, episode.quality["wrist"].missing) == (1, 6)
    assert [r.start for r in episode.runs(View.FRAMES)] == [0, 16]
    (round_,) = export_lerobot(with_camera, with_camera / "contract.yaml", tmp_path / "dataset", ExportSettings())
    assert round_["left_out"] == {"not whole": 4, "not in the view": 0}
    check_conforms(tmp_path / "dataset")


def table_row(text: str, name: str) -> list[str]:
    """The cells of the first printed row that begins so."""
    return next(cells for cells in map(str.split, text.splitlines()) if cells[:1] == [name])


def test_inspection_shows_gaps_and_stale_ticks_of_streams_and_cameras(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(10, 16))
    (view,) = inspect_rounds([with_camera / "rounds/000"], load_contract(with_camera / "contract.yaml"))
    ticks = view.manifest.episodes[0].ticks
    main(["inspect", str(with_camera)])
    text = capsys.readouterr().out
    assert table_row(text, "wrist")[-3:] == ["1", "6", "4"]
    assert table_row(text, "000")[-3:] == [str(ticks), str(ticks - 4), "-"]
    # Nothing but pictures was taken over into this run.
    assert table_row(text, "tool_position")[-3:] == ["0", "0", "0"]


def test_dataset_elsewhere_is_verified_where_it_is_named(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(0))
    out, nothing = tmp_path / "all", tmp_path / "nothing"
    main(["export", str(with_camera), "--view", "frames", "--out", str(out)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(with_camera), "--dataset", str(out), "--dataset", str(nothing)])
    assert exit_.value.code == 2
    said = capsys.readouterr()
    assert f"{out}: ok" in said.out
    assert f"{nothing}: not as it was written" in said.out
    assert f"{nothing}: expected a dataset of dagger-ros export" in said.err


def test_edited_video_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(0))
    main(["export", str(with_camera)])
    main(["verify", str(with_camera)])
    (video,) = with_camera.glob("dataset/videos/*/*/*.mp4")
    data = bytearray(video.read_bytes())
    data[len(data) // 2] ^= 1
    video.write_bytes(data)
    with pytest.raises(SystemExit) as exit_:
        main(["verify", str(with_camera)])
    assert exit_.value.code == 2
    assert f"{video}: expected what the bags give; it differs" in capsys.readouterr().err


@pytest.mark.parametrize("format_", ["lerobot", "robomimic", "csv", "parquet"])
def test_disk_that_does_not_take_all_is_named_and_nothing_is_left(run: Path, tmp_path: Path, format_: str) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(0))
    out = tmp_path / "out/dataset"
    out.parent.mkdir()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, limits[1]))
    try:
        with pytest.raises(SystemExit) as exit_:
            main(["export", str(with_camera), "--format", format_, "--view", "frames", "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert exit_.value.code == 2
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize("damaged", [b"", b"\x89PNG\r\n\x1a\n" + bytes(40), jpeg(0)[:100]])
def test_picture_that_cannot_be_read_is_named_and_nothing_is_left(run: Path, tmp_path: Path, damaged: bytes) -> None:
    with_camera = run_with_a_camera(
        run, tmp_path / "run", range(0), picture=lambda value: damaged if value == 105 else jpeg(value)
    )
    contract = load_contract(with_camera / "contract.yaml")
    out = tmp_path / "out"
    words = r"000000/bag: camera wrist, message \d+ of the bag, on /wrist/image: expected a picture; "
    with pytest.raises(DaggerError, match=words):
        export_lerobot(with_camera, with_camera / "contract.yaml", out / "dataset", ExportSettings())
    episodes = read_frames([with_camera / "rounds/000"], contract)
    with pytest.raises(DaggerError, match=words):
        export_file(out / "demo.hdf5", "robomimic", episodes, contract, View.LABELS)
    assert list(out.iterdir()) == []


def test_round_that_was_labelled_anew_is_inspected_and_exported_as_any_other(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scripted"
    main(["replay", str(run / "rounds/001"), "--expert", "--out", str(out / "rounds/001")])
    assert (out / "contract.yaml").read_text() == (run / "contract.yaml").read_text()
    main(["inspect", str(out)])
    main(["export", str(out)])
    capsys.readouterr()
    lane = tmp_path / "lane/rounds/001"
    lane.mkdir(parents=True)
    shutil.copy(contract_path("lane"), tmp_path / "lane/contract.yaml")
    with pytest.raises(SystemExit) as exit_:
        main(["replay", str(run / "rounds/001"), "--expert", "--out", str(lane)])
    assert exit_.value.code == 2
    assert "frames of different contracts do not mix" in capsys.readouterr().err
    assert list(lane.iterdir()) == []


def test_tables_have_a_column_for_each_value_with_its_unit(run: Path, tmp_path: Path) -> None:
    contract = load_contract(run / "contract.yaml")
    folders = [run / "rounds/000", run / "rounds/001"]
    for kind in ("csv", "parquet"):
        frames = export_file(tmp_path / kind, kind, read_frames(folders, contract), contract, View.FRAMES)
        with pytest.raises(DaggerError, match="expected no file of this name yet"):
            export_file(tmp_path / kind, kind, [], contract, View.FRAMES)
        table = pq.read_table(tmp_path / kind) if kind == "parquet" else pa.csv.read_csv(tmp_path / kind)
        assert table.num_rows == frames > 50
        assert {"action.vx [m/s]", "dagger.mode", "dagger.age.tool_position [s]"} <= set(table.column_names)
        assert set(table["dagger.intervention_reason"].to_pylist()) <= {"demonstration", "none"}


def test_robomimic_file_has_demonstrations_with_actions_from_minus_one_to_one(run: Path, tmp_path: Path) -> None:
    contract = load_contract(run / "contract.yaml")
    folders = [run / "rounds/000", run / "rounds/001"]
    out = tmp_path / "demo.hdf5"
    frames = export_file(out, "robomimic", read_frames(folders, contract), contract, View.LABELS)
    with h5py.File(out) as file:
        data = file["data"]
        assert data.attrs["total"] == frames == sum(demo.attrs["num_samples"] for demo in data.values())
        assert set(json.loads(data.attrs["env_args"])) == {"env_name", "type", "env_kwargs"}
        assert file["mask/train"].dtype.kind == "S"
        assert [n.decode() for n in file["mask/round_001"]] == ["demo_2", "demo_3"]
        for demo in data.values():
            length = demo.attrs["num_samples"]
            assert demo["actions"].shape == (length, 3)
            assert np.abs(demo["actions"]).max() <= 1.0
            assert demo["obs/tool_position"].shape == (length, 3)
            assert {"rewards", "dones", "states"} <= set(demo)
        assert set(data["demo_0/action_modes"][:]) == {-1}


def test_robomimic_file_has_the_recorded_pictures(run: Path, tmp_path: Path) -> None:
    with_camera = run_with_a_camera(run, tmp_path / "run", missing=range(10, 16))
    contract = load_contract(with_camera / "contract.yaml")
    out = tmp_path / "demo.hdf5"
    export_file(out, "robomimic", read_frames([with_camera / "rounds/000"], contract), contract, View.LABELS)
    with h5py.File(out) as file:
        before, after = (file[f"data/demo_{i}/obs/wrist"][:] for i in range(2))
    assert before.dtype == np.uint8
    shown = [*range(10), 9, 9, *range(16, 16 + len(after))]
    recorded = [np.asarray(Image.open(io.BytesIO(jpeg(100 + i)))) for i in shown]
    np.testing.assert_array_equal(np.concatenate([before, after]), recorded)
