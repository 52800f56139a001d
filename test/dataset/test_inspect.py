"""How much of what was recorded is new."""

from __future__ import annotations

import numpy as np
import pytest

from dagger_ros.dataset.inspect import new_share

RESOLUTION = np.full(2, 1e-3)


def path(*, of: float, offset: float = 0.0, count: int = 200, seed: int = 0) -> np.ndarray:
    """An episode along a line, with some noise."""
    rng = np.random.default_rng(seed)
    along = np.linspace(0.0, of, count)
    return np.stack([along, np.full(count, offset)], axis=1) + 0.01 * rng.standard_normal((count, 2))


def test_what_lies_where_earlier_episodes_were_is_not_new() -> None:
    before = [path(of=1.0, seed=i) for i in range(4)]
    assert new_share(before, [path(of=1.0, seed=9)], RESOLUTION) == pytest.approx(0.05, abs=0.05)
    # One half goes on where nobody was.
    assert new_share(before, [path(of=2.0, seed=9)], RESOLUTION) == pytest.approx(0.5, abs=0.07)
    assert new_share(before, [path(of=1.0, offset=5.0)], RESOLUTION) == 1.0


def test_neighbours_in_time_do_not_make_a_frame_known() -> None:
    """Two episodes far apart: each frame has a close neighbour, but only in its own episode."""
    apart = [path(of=1.0), path(of=1.0, offset=1.0)]
    assert new_share(apart, [path(of=1.0, offset=0.5)], RESOLUTION) == 0.0
    assert new_share(apart[:1], [path(of=1.0, offset=0.5)], RESOLUTION) == 1.0  # nothing else to compare with


def test_many_frames_are_thinned_out_evenly() -> None:
    before = [path(of=1.0, count=3000, seed=i) for i in range(3)]
    assert new_share(before, [path(of=2.0, seed=9)], RESOLUTION) == pytest.approx(0.5, abs=0.07)


def test_frames_that_are_no_numbers_do_not_count() -> None:
    broken = path(of=1.0)
    broken[::2] = np.nan
    before = [path(of=1.0, seed=i) for i in range(2)]
    assert new_share([*before, broken], [broken], RESOLUTION) < 0.2
    assert new_share([np.full((3, 2), np.nan)], [broken], RESOLUTION) == 0.0
    assert new_share(before, [np.full((3, 2), np.nan)], RESOLUTION) == 0.0
