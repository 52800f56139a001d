"""Files that appear whole or not at all."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from dagger_ros.contract.errors import DaggerError

__all__ = [
    "file_sha256",
    "inside",
    "link_file",
    "replace_folder",
    "sync_folder",
    "sync_new",
    "write_file",
    "write_files",
]


def sync_folder(path: Path) -> None:
    """Gets the names in a folder onto the disk, so that they outlive a power cut."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sync_new(folder: Path) -> None:
    """Gets everything below a folder onto the disk, but for files that have a name elsewhere: those are there."""
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() or path.stat().st_nlink == 1:
            sync_folder(path)  # does the same to a file


def link_file(source: str | Path, target: str | Path) -> None:
    """The same file under another name; a copy where the disk has no such links."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def write_file(path: Path, content: bytes) -> None:
    """Writes through a temporary file beside it, with fsync before the rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Writes a folder of files; an older folder of that name is replaced as a whole."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for name, content in contents.items():
        write_file(part / name, content)
    replace_folder(part, folder)


def replace_folder(part: Path, folder: Path) -> None:
    """Gives a finished folder its name; one that has the name is gone in the same moment, where the system can do so.

    Args:
        part: Lies beside `folder`.
        folder: Need not exist.
    """
    if not folder.exists():
        part.replace(folder)
    elif _exchange(part, folder):
        shutil.rmtree(part)  # what had the name
    else:
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
        part.replace(folder)
        shutil.rmtree(old)
    sync_folder(folder.parent)


def _exchange(one: Path, other: Path) -> bool:
    """Swaps two names at once, and says whether this system can."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2 is not None and renameat2(here, bytes(one), here, bytes(other), exchange) == 0


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def inside(folder: Path, name: str) -> Path:
    """The file of that name in a folder.

    Raises:
        DaggerError: If the name leads out of the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DaggerError(f"{folder}: expected the name of a file in this folder, found {name!r}, which leaves it")
    return path
