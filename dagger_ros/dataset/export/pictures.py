"""What a camera saw at each frame, decoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dagger_ros.contract import Contract, DaggerError
from dagger_ros.contract.messages import read_image
from dagger_ros.dataset.bag import typestore_of
from dagger_ros.dataset.contents import read_in_turn
from dagger_ros.dataset.frames import EpisodeFrames

__all__ = ["Pixels", "pictures"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def pictures(episode: EpisodeFrames, runs: Sequence[slice], name: str, contract: Contract) -> Iterator[Pixels]:
    """The pictures of one camera, frame after frame; one that is the newest at several frames is decoded once.

    Args:
        episode: That they were recorded in.
        runs: Of frames, in order.
        name: Of the camera.
        contract: Of the episode.

    Returns:
        (height, width, 3) uint8 RGB each, not to be changed.

    Raises:
        DaggerError: If one cannot be read, or is of another size than the contract says.
    """
    camera, typestore = contract.cameras[name], typestore_of(())
    order = [i for run in runs for i in episode.images[name][run].tolist()]
    last, pixels = b"", np.empty(0, np.uint8)
    for number, data in zip(order, read_in_turn(episode.bag, order), strict=True):
        if data is not last:
            try:
                pixels = read_image(camera, typestore.deserialize_cdr(data, camera.type))
            except Exception as error:  # what a damaged picture makes a decoder raise is not to be listed
                raise DaggerError(
                    f"{episode.bag}: camera {name}, message {number} of the bag, on /{camera.topic}: expected a "
                    f"picture; {error}"
                ) from error
            last = data
        yield pixels
