"""Sets up `.venv`: pinned Python packages, ROS 2 where none is sourced, the built messages of this checkout.

    python3 tools/env.py        what `make env` runs; a fraction of a second when there is nothing to do

Standard library only, because it runs before anything is installed. Where a ROS 2 installation is sourced it
is used; otherwise ROS 2 Kilted comes from PyPI wheels. Afterwards `.venv/bin/python` finds the sources of
this checkout, the generated `dagger_ros.msg` and ROS, from every folder and with nothing to source: see
`BOOTSTRAP`. All that is made, build folder and logs included, lies in `.venv`.

Environment:
    TORCH: requirement to install instead of the pinned torch, such as `torch==2.9.1`.
"""

import sys

if sys.version_info < (3, 10):  # before anything that an older Python would trip over
    sys.stderr.write(
        "make env: Python 3.10 or newer is needed and %s is %d.%d; "
        "name another, as in `make env PYTHON=python3.12`.\n"
        % (sys.executable, sys.version_info[0], sys.version_info[1])
    )
    sys.exit(2)

import fcntl
import hashlib
import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOGS = VENV / "log"
STAMP = VENV / "dagger_ros_env.json"
PYTHON = VENV / "bin/python"
CONSTRAINTS = ROOT / "tools/constraints.txt"
SITE_PACKAGES = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"  # in VENV

TORCH = os.environ.get("TORCH") or "torch==2.13.0"
# CPU-only builds of torch: 190 MB instead of the several GB with CUDA that PyPI has for Linux.
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
# Measured on Linux x86-64 with Python 3.11: .venv takes 1.6 GB, pip 0.7 GB more while it downloads.
NEEDED_GB = 2.5
NEEDED_TO_BUILD_GB = 0.2

# Run at every start of the venv's Python, through a .pth file. The dynamic linker reads LD_LIBRARY_PATH
# only when a process starts, so Python starts itself again, once: its children inherit the variables. The
# wheels have such a .pth file of their own, which this one replaces.
BOOTSTRAP = '''\
"""Written by tools/env.py: every Python of this .venv finds the ROS libraries and the checkout."""

import os
import sys

PATHS = {paths!r}


def _start_with_ros():
    if any(word.endswith("_local_setup_util_sh.py") for word in sys.orig_argv):
        return  # local_setup.bash asks what the shell lacks; it takes what is set here for the shell's
    start_again = False
    for name, wanted in PATHS.items():
        present = [path for path in os.environ.get(name, "").split(os.pathsep) if path]
        missing = [path for path in wanted if path not in present]
        if missing:
            os.environ[name] = os.pathsep.join(missing + present)
            start_again = start_again or name != "AMENT_PREFIX_PATH"
    if start_again:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


_start_with_ros()
sys.path.insert(0, {root!r})
'''


class SetupError(Exception):
    """What is wrong and what to do about it, in one sentence, and lines of a log that tell more."""

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


def main() -> int:
    """Brings `.venv` up to date. Returns the exit status: 0, or 2 after one sentence on stderr."""
    try:
        if read_stamp() != keys():
            with open(__file__) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time; the next finds the work done
                set_up()
        return 0
    except SetupError as error:
        print(f"make env: {error}", error.details, sep="\n" if error.details else "", file=sys.stderr)
    except OSError as error:
        print(f"make env: {disk_full(str(error)) or f'{error}; mend that and run it again.'}", file=sys.stderr)
    except KeyboardInterrupt:
        print("make env: interrupted; the next run goes on from there.", file=sys.stderr)
    return 2


# What there is and what there should be


def ros_distribution() -> str:
    """Gives the name of the sourced ROS 2 that this Python can import; empty if there is none."""
    return os.environ.get("ROS_DISTRO", "") if importlib.util.find_spec("rclpy") else ""


def keys() -> dict[str, str]:
    """Gives for each stage a digest of what its result depends on, the stages before it included."""
    venv = digest([sys.version, sys.base_prefix, str(VENV), ros_distribution()])
    packages = digest([venv, TORCH, *contents("setup.py", "tools/env.py", "tools/constraints.txt")])
    shared = (path for folder in ("config", "launch") for path in (ROOT / folder).rglob("*"))
    links = sorted(str(path) for path in shared if path.is_file() and path.suffix != ".pyc")
    built = contents("setup.py", "package.xml", "CMakeLists.txt", "msg/*.msg", "srv/*.srv")
    return {"venv": venv, "packages": packages, "build": digest([packages, *links, *built])}


def contents(*patterns: str) -> list[str]:
    """Gives names and texts of the matching files of the checkout."""
    paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
    return [text for path in paths for text in (str(path), path.read_text(encoding="utf-8"))]


def digest(texts: list[str]) -> str:
    """Gives the SHA-256 of a list of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def read_stamp() -> dict[str, str]:
    """Gives the digests of the stages that were finished; none if the file is not there or not whole."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def write_stamp(stamp: dict[str, str]) -> None:
    """Records the finished stages."""
    partial = STAMP.with_suffix(".partial")
    partial.write_text(json.dumps(stamp))
    partial.replace(STAMP)


# The stages


def set_up() -> None:
    """Runs the stages whose digest has changed; one that was interrupted has none, so it runs again."""
    start_s = time.monotonic()
    wanted, stamp, ros = keys(), read_stamp(), ros_distribution()
    if stamp == wanted:
        return
    new_venv = stamp.get("venv") != wanted["venv"]
    new_packages = new_venv or stamp.get("packages") != wanted["packages"]
    check_machine(needed_gb=NEEDED_GB if new_venv else NEEDED_TO_BUILD_GB)

    say(f"Python {sys.version.split()[0]}, ROS 2 {f'{ros} as sourced' if ros else 'kilted from PyPI wheels'}")
    if new_venv:
        with timed("virtual environment"):
            make_venv(system_site_packages=bool(ros))
    LOGS.mkdir(exist_ok=True)
    if new_packages:
        write_stamp({"venv": wanted["venv"]})
        if ros:
            install_beside_ros()
            build(ros=ros)
        else:
            install_wheels_and_build()
    else:
        build(ros=ros)
    write_stamp(wanted)
    say(f"ready in {time.monotonic() - start_s:.0f} s")


def check_machine(*, needed_gb: float) -> None:
    """Raises SetupError for what would otherwise fail minutes later, with a message that is hard to read."""
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    if free_gb < needed_gb:
        raise SetupError(
            f"the disk is too full: {VENV} needs {needed_gb:.1f} GB and {free_gb:.1f} GB are free; "
            "make room and run it again."
        )
    for variable, language, usual in (("CC", "C", "cc gcc clang"), ("CXX", "C++", "c++ g++ clang++")):
        names = os.environ.get(variable, "").split()[:1] or usual.split()
        if not any(shutil.which(name) for name in names):
            raise SetupError(
                f"there is no {language} compiler ({', '.join(names)}), and ROS messages are built with it: "
                "`sudo apt install g++` on Debian or Ubuntu."
            )
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        raise SetupError(
            f"there is no Python.h in {include}, and ROS messages are built with it: "
            "`sudo apt install python3-dev` on Debian or Ubuntu."
        )
    if not importlib.util.find_spec("ensurepip"):
        raise SetupError(
            f"{sys.executable} cannot make virtual environments, it lacks ensurepip: "
            "`sudo apt install python3-venv` on Debian or Ubuntu."
        )


def make_venv(*, system_site_packages: bool) -> None:
    """Makes an empty `.venv` in place of the one that is there."""
    shutil.rmtree(VENV, ignore_errors=True)
    python = getattr(sys, "_base_executable", sys.executable)  # not that of .venv, if somebody activated it
    options = ["--system-site-packages"] if system_site_packages else []
    command = [python, "-m", "venv", *options, str(VENV)]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode:
        raise SetupError(disk_full(result.stdout) or f"`{' '.join(command)}` failed: {last_line(result.stdout)}")


def install_wheels_and_build() -> None:
    """Installs the pinned set. The messages are built once ROS is there, while pip is busy with the rest."""
    sections = pinned()
    with ThreadPoolExecutor() as pool:
        rest = pool.submit(pip, "mujoco, scipy, rosbags, pytest, ...", "rest", "--no-deps", *sections["rest"])
        pip("ROS 2 and build tools", "ros", "--no-deps", *sections["ros"])
        adapt_wheels()
        write_bootstrap(own_paths())
        rest.result()
        # With dependencies, because those of a CUDA build are not among the pins.
        places = ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
        options = [] if any(os.environ.get(name) for name in places) else ["--extra-index-url", TORCH_INDEX]
        torch = pool.submit(pip, TORCH, "torch", "--constraint", str(CONSTRAINTS), *options, TORCH)
        build(ros="")
        torch.result()


def pinned() -> dict[str, list[str]]:
    """Gives the requirements of tools/constraints.txt by section."""
    sections: dict[str, list[str]] = {}
    for line in CONSTRAINTS.read_text().splitlines():
        heading = re.fullmatch(r"# \[(\w+)\]", line)
        if heading:
            sections[heading[1]] = []
        elif line and not line.startswith("#"):
            list(sections.values())[-1].append(line)
    return sections


def install_beside_ros() -> None:
    """Installs the ranges of setup.py, with the numpy that the installation's libraries were built for."""
    setup = runpy.run_path(str(ROOT / "setup.py"))
    requirements = [TORCH if r.startswith("torch") else r for r in setup["REQUIRES"] + setup["TEST_REQUIRES"]]
    if not shutil.which("colcon"):
        requirements += ["colcon-common-extensions", "setuptools<80"]
    command = [str(PYTHON), "-c", "import numpy; print(numpy.__version__)"]
    numpy = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if numpy.returncode == 0:
        requirements.append(f"numpy=={numpy.stdout.strip()}")
    pip("Python packages", "packages", *requirements)
    paths = own_paths()
    for name in ("LD_LIBRARY_PATH", "AMENT_PREFIX_PATH", "PYTHONPATH"):
        sourced = [path for path in os.environ.get(name, "").split(os.pathsep) if path]
        paths[name] = [*paths.get(name, []), *(path for path in sourced if path not in paths.get(name, []))]
    write_bootstrap(paths)


def pip(what: str, name: str, *arguments: str) -> None:
    """Runs `pip install`, output in `.venv/log/pip-NAME.txt`. Modules are compiled when first imported."""
    log = LOGS / f"pip-{name}.txt"
    command = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--no-compile",
        "--no-input",
        "--prefer-binary",
        *arguments,
    ]
    with timed(what), open(log, "w") as out:
        if subprocess.call(command, stdout=out, stderr=subprocess.STDOUT, cwd=VENV):
            raise SetupError(pip_failure(log.read_text(errors="replace"), log))


def adapt_wheels() -> None:
    """Replaces the paths of the machine that built the wheels in the CMake files that they export."""
    built_with = re.compile(rb"/opt/python/cp\d+-cp\d+/(include|lib)/python3\.\d+(/site-packages)?")
    here = {b"include": sysconfig.get_path("include").encode(), b"lib": str(VENV / SITE_PACKAGES).encode()}
    for path in (VENV / "share").rglob("*.cmake"):
        text = path.read_bytes()
        adapted = built_with.sub(lambda match: here[match[1]], text)
        if adapted != text:
            path.write_bytes(adapted)


def own_paths() -> dict[str, list[str]]:
    """Gives where libraries and ROS packages lie in `.venv`, as path lists of environment variables."""
    bundled = sorted(str(path) for path in VENV.glob(f"{SITE_PACKAGES}/ros_*.libs"))
    return {"LD_LIBRARY_PATH": [str(VENV / "lib"), *bundled], "AMENT_PREFIX_PATH": [str(VENV)]}


def write_bootstrap(paths: dict[str, list[str]]) -> None:
    """Makes every Python of `.venv` start with these path lists and with the sources of this checkout."""
    bootstrap = VENV / SITE_PACKAGES / "_dagger_ros_env.py"
    bootstrap.write_text(BOOTSTRAP.format(paths=paths, root=str(ROOT)))
    bootstrap.with_name("ros_wheels_bootstrapper.pth").unlink(missing_ok=True)
    # Not imported by name: PYTHONPATH may lead to the file of another checkout.
    bootstrap.with_name("dagger_ros_env.pth").write_text(f"import sys; exec(open({str(bootstrap)!r}).read(), {{}})\n")


def build(*, ros: str) -> None:
    """Builds the messages into `.venv`; config and launch files become links, so edits need no build."""
    environment = dict(os.environ, PATH=f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    cmake = [f"-DPython3_EXECUTABLE={PYTHON}", f"-DPYTHON_INSTALL_DIR={SITE_PACKAGES}", "-DBUILD_TESTING=OFF"]
    if not ros:
        environment.update({name: os.pathsep.join(paths) for name, paths in own_paths().items()})
        cmake.append(f"-DCMAKE_PREFIX_PATH={VENV}")
    log = LOGS / "colcon.txt"
    command = ["colcon", "--log-base", str(LOGS / "colcon"), "build", "--base-paths", str(ROOT)]
    command += ["--packages-select", "dagger_ros", "--build-base", str(VENV / "build"), "--merge-install"]
    command += [
        "--install-base",
        str(VENV),
        "--symlink-install",
        "--cmake-force-configure",
        "--cmake-args",
        *cmake,
    ]
    with timed("messages built"), open(log, "w") as out:
        if subprocess.call(command, stdout=out, stderr=subprocess.STDOUT, cwd=VENV, env=environment):
            raise build_failure(log.read_text(errors="replace"), log)


# Words


def say(text: str) -> None:
    """Tells how far it is."""
    print(f"make env: {text}", flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tells what was done and how long it took, once it is done."""
    start_s = time.monotonic()
    yield
    say(f"  {what}: {time.monotonic() - start_s:.0f} s")


def disk_full(output: str) -> str:
    """Gives the sentence for a disk that ran full, if that is what the output of a command is about."""
    if "No space left on device" not in output:
        return ""
    free_gb = shutil.disk_usage(ROOT).free / 1e9
    return (
        f"the disk ran full: {VENV} needs {NEEDED_GB:.1f} GB and {free_gb:.1f} GB are free now; make room "
        "there (or for temporary files, see TMPDIR) and run it again."
    )


def pip_failure(output: str, log: Path) -> str:
    """Gives the sentence for a failed pip."""
    if disk_full(output):
        return disk_full(output)
    if re.search(r"\w+(Connection|Resolution|Timeout|Proxy|SSL)Error|Max retries", output):
        return (
            "pip cannot reach the package index: check the network (or PIP_INDEX_URL, HTTPS_PROXY) and run "
            f"it again; what pip said is in {log}."
        )
    errors = [line for line in output.splitlines() if line.startswith("ERROR: ")] or [last_line(output)]
    return f"pip failed: {errors[-1].removeprefix('ERROR: ')} (all it said is in {log})."


def build_failure(output: str, log: Path) -> SetupError:
    """Gives the sentence for a failed build, with the first error and the last lines."""
    if disk_full(output):
        return SetupError(disk_full(output))
    lines = [line for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    return SetupError(
        f"colcon could not build the messages: mend what it complains about and run it again; all it said is in {log}.",
        "\n".join(f"    {line}" for line in [*errors[:1], "...", *lines[-10:]]),
    )


def last_line(output: str) -> str:
    """Gives the last line that is not empty."""
    return (output.strip().splitlines() or ["no output"])[-1]


if __name__ == "__main__":
    sys.exit(main())
