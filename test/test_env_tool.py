import importlib.util
import runpy
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENV_TOOL = ROOT / "tools/env.py"


@pytest.fixture
def env(tmp_path):
    """Gives the tool as a module, working on a small copy of the checkout."""
    for name in ("tools/env.py", "tools/constraints.txt", "setup.py", "package.xml", "CMakeLists.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "msg").mkdir()
    (tmp_path / "msg/A.msg").write_text("int64 a\n")
    (tmp_path / "dagger_ros").mkdir()
    (tmp_path / "dagger_ros/a.py").write_text("A = 1\n")
    spec = importlib.util.spec_from_file_location("env_tool", tmp_path / "tools/env.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def fails(env, capsys):
    """Gives a function that runs the tool and returns the one line that it leaves on stderr."""

    def run():
        assert env.main() == 2
        err = capsys.readouterr().err
        assert err.startswith("make env: ")
        assert err.count("\n") == 1
        return err

    return run


def test_an_old_python_gets_one_sentence_and_status_2():
    code = "import runpy, sys; sys.version_info = (3, 9, 2); runpy.run_path(sys.argv[1], run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code, str(ENV_TOOL)], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "Python 3.10 or newer is needed" in result.stderr
    assert "is 3.9" in result.stderr
    assert "make env PYTHON=" in result.stderr


def test_a_full_disk_is_told_before_anything_is_written(env, fails, monkeypatch):
    usage = namedtuple("usage", "total used free")(int(1e12), int(1e12), int(1.2e9))
    monkeypatch.setattr(env.shutil, "disk_usage", lambda _: usage)
    assert "needs 2.5 GB and 1.2 GB are free" in fails()
    assert not env.VENV.exists()


@pytest.mark.parametrize(("variable", "language"), [("CC", "C"), ("CXX", "C++")])
def test_a_missing_compiler_is_told_before_anything_is_written(env, fails, monkeypatch, variable, language):
    monkeypatch.setenv(variable, "no-such-compiler -O2")
    assert f"no {language} compiler (no-such-compiler)" in (line := fails())
    assert "sudo apt install g++" in line
    assert not env.VENV.exists()


def test_missing_python_headers_are_told(env, fails, monkeypatch, tmp_path):
    monkeypatch.setattr(env.sysconfig, "get_path", lambda _: str(tmp_path))
    assert "sudo apt install python3-dev" in fails()


def test_a_python_without_ensurepip_is_told(env, fails, monkeypatch):
    monkeypatch.setattr(env.importlib.util, "find_spec", lambda _: None)
    assert "sudo apt install python3-venv" in fails()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('<...>: Failed to "
            "establish a new connection: [Errno -2] Name or service not known')': /simple/numpy/\n"
            "ERROR: Could not find a version that satisfies the requirement numpy==2.4.6 (from versions: none)\n"
            "ERROR: No matching distribution found for numpy==2.4.6\n",
            "cannot reach the package index",
        ),
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: Read timed out.\n", "cannot reach the package index"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            "the disk ran full",
        ),
        (
            "ERROR: Could not find a version that satisfies the requirement torch==9 (from versions: 2.13.0)\n"
            "ERROR: No matching distribution found for torch==9\n",
            "pip failed: No matching distribution found for torch==9 (all it said is in pip.txt)",
        ),
        ("", "pip failed: no output"),
    ],
)
def test_a_failed_pip_gets_one_sentence(env, output, words):
    sentence = env.pip_failure(output, Path("pip.txt"))
    assert words in sentence
    assert "\n" not in sentence


def test_a_failed_build_shows_the_first_error_and_the_end_and_where_the_rest_is(env):
    output = "a.cpp:1: error: no\n" + "".join(f"line {i}\n" for i in range(50))
    error = env.build_failure(output, Path("colcon.txt"))
    assert "colcon.txt" in str(error)
    assert "error: no" in error.details
    assert "line 49" in error.details
    assert "line 20" not in error.details


def test_a_disk_that_runs_full_while_compiling_is_told(env):
    error = env.build_failure("cc1plus: fatal error: No space left on device\n", Path("colcon.txt"))
    assert "the disk ran full" in str(error)


def test_an_operating_system_error_gets_one_sentence(env, fails, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied", ".venv")

    monkeypatch.setattr(env, "check_machine", refuse)
    assert "Permission denied: '.venv'" in fails()


def test_an_edit_of_python_needs_no_stage(env):
    before = env.keys()
    (env.ROOT / "dagger_ros/a.py").write_text("A = 2\n")
    assert env.keys() == before


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        ("msg/A.msg", {"build"}),
        ("msg/B.msg", {"build"}),
        ("srv/B.srv", {"build"}),
        ("launch/b.launch.py", {"build"}),
        ("CMakeLists.txt", {"build"}),
        ("tools/constraints.txt", {"packages", "build"}),
        ("setup.py", {"packages", "build"}),
    ],
)
def test_a_change_runs_the_stages_that_depend_on_it(env, change, stages):
    before = env.keys()
    (env.ROOT / change).parent.mkdir(exist_ok=True)
    (env.ROOT / change).write_text("changed\n")
    after = env.keys()
    assert {stage for stage in after if after[stage] != before[stage]} == stages


def test_another_torch_runs_the_stages_that_depend_on_it(env, monkeypatch):
    before = env.keys()
    monkeypatch.setattr(env, "TORCH", "torch==2.9.1")
    after = env.keys()
    assert {stage for stage in after if after[stage] != before[stage]} == {"packages", "build"}


def test_a_torn_stamp_counts_as_nothing_done(env):
    env.VENV.mkdir()
    env.STAMP.write_text('{"venv": "12')
    assert env.read_stamp() == {}


def test_nothing_runs_when_the_stamp_is_current(env, monkeypatch):
    env.VENV.mkdir()
    env.write_stamp(env.keys())
    monkeypatch.setattr(env, "set_up", lambda: pytest.fail("ran"))
    assert env.main() == 0


def test_the_pins_lie_within_the_ranges_of_setup_py(env):
    requirements = pytest.importorskip("packaging.requirements")
    setup = runpy.run_path(str(ROOT / "setup.py"))
    ranges = [requirements.Requirement(r) for r in setup["REQUIRES"] + setup["TEST_REQUIRES"]]
    pins = [requirements.Requirement(pin) for section in env.pinned().values() for pin in section]
    pins.append(requirements.Requirement(env.TORCH))
    for wanted in ranges:
        versions = [next(iter(pin.specifier)).version for pin in pins if pin.name.lower() == wanted.name.lower()]
        assert versions, f"{wanted.name} has no pin"
        assert all(version in wanted.specifier for version in versions)
