from __future__ import annotations

import itertools

import pytest

from dagger_ros.contract import Mode
from dagger_ros.supervisor import Event, next_mode

ARMED = (Mode.HOLD, Mode.POLICY, Mode.EXPERT)


@pytest.mark.parametrize(("mode", "event"), list(itertools.product(Mode, Event)))
def test_full_product_of_modes_and_events(mode: Mode, event: Event) -> None:
    after = next_mode(mode, event)
    if event is Event.ESTOP:
        assert after is Mode.ESTOP
    elif mode is Mode.ESTOP:
        assert after is (Mode.HOLD if event is Event.RESET_ESTOP else Mode.ESTOP)
    elif event is Event.LOCK:
        assert after is Mode.LOCKED
    elif mode is Mode.LOCKED:
        assert after is (Mode.HOLD if event is Event.ARM else Mode.LOCKED)
    elif event is Event.TAKEOVER:
        assert after is Mode.EXPERT
    elif event is Event.HOLD:
        assert after is Mode.HOLD
    elif event is Event.RESUME:
        assert after is (Mode.POLICY if mode is Mode.HOLD else mode)
    elif event is Event.RELEASE:
        assert after is (Mode.HOLD if mode is Mode.EXPERT else mode)
    else:
        assert after is mode


@pytest.mark.parametrize("mode", ARMED)
def test_release_never_leads_to_the_policy(mode: Mode) -> None:
    if mode is not Mode.POLICY:
        assert next_mode(mode, Event.RELEASE) is not Mode.POLICY
