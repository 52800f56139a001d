"""Pictures as MP4, frame by frame at a constant rate, the same bytes each time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from dagger_ros.contract import DaggerError

__all__ = ["CODECS", "pixel_format", "write_video"]

# Encoder and options. Every second frame is a key frame: a single frame is quickly found, as training wants it. One
# thread each: how many there are would show in the bytes.
CODECS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"crf": "18", "g": "2", "preset": "fast", "threads": "1"}),
    "av1": ("libsvtav1", {"crf": "24", "g": "2", "preset": "10", "svtav1-params": "lp=1"}),
}

# SVT-AV1 describes itself on the terminal at each video otherwise.
os.environ.setdefault("SVT_LOG", "1")


def pixel_format(width: int, height: int) -> str:
    """Colours at half the resolution, as every player knows them, where the size can be halved."""
    return "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"


def write_video(path: Path, pictures: Iterable[np.ndarray[Any, np.dtype[np.uint8]]], fps: int, codec: str) -> None:
    """Encodes one video.

    Args:
        path: The MP4 file; its folder exists.
        pictures: (height, width, 3) uint8 RGB, all of one size.
        fps: Frames in a second: frame k stands at k / fps.
        codec: One of `CODECS`.

    Raises:
        DaggerError: If the encoder is not there, or does not take pictures of that size: in AV1 width and height are
            even.
        OSError: If the disk does not take it.
    """
    encoder, options = CODECS[codec]
    try:
        with _scheduling_kept():
            _encode(path, pictures, fps, encoder, options)
    except (av.FFmpegError, ValueError) as error:
        if isinstance(error, OSError):
            raise
        raise DaggerError(
            f"{path.parent.parent.name}: expected pictures that {encoder} makes a video of; {error}. Does another "
            f"--codec, of {', '.join(CODECS)}?"
        ) from error


@contextmanager
def _scheduling_kept() -> Iterator[None]:
    """Run by root, SVT-AV1 gives the thread that calls it the highest real-time priority, and leaves it so."""
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if (os.sched_getscheduler(0), os.sched_getparam(0)) != (policy, parameters):
            os.sched_setscheduler(0, policy, parameters)


def _encode(
    path: Path, pictures: Iterable[np.ndarray[Any, np.dtype[np.uint8]]], fps: int, encoder: str, options: dict[str, str]
) -> None:
    with av.open(str(path), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container:
        stream: Any = None
        for i, pixels in enumerate(pictures):
            if stream is None:
                height, width = pixels.shape[:2]
                stream = container.add_stream(encoder, rate=fps, options=options)
                stream.width, stream.height = width, height
                stream.pix_fmt = pixel_format(width, height)
                stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())
