from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from dagger_ros.contract import NEVER_NS, Contract, DecisionWriter, Mode, RowLayout, mode_of, read_decision


def test_new_rows_hold_nothing_received(contract: Contract) -> None:
    row = RowLayout(contract).new(1)[0]
    assert (row["stamp_ns"] == NEVER_NS).all()
    assert (row["receive_ns"] == NEVER_NS).all()
    assert np.isnan(row["observation"]).all()
    assert row["label_source"] == -1


def test_streams_are_views_that_together_fill_the_observations(contract: Contract) -> None:
    layout = RowLayout(contract)
    row = layout.new(1)[0]
    for i in range(len(layout.streams)):
        layout.stream(row, i)[:] = i
    assert not np.isnan(row["observation"]).any()
    assert not np.isnan(row["privileged"]).any()
    assert len(layout.columns()) == layout.observation_size == len(layout.resolution())


def test_privileged_streams_are_never_policy_inputs(contract: Contract) -> None:
    privileged = {name for name, s in contract.streams.items() if s.privileged}
    assert privileged
    assert not privileged & {column.partition(".")[0] for column in RowLayout(contract).columns()}


@pytest.mark.ros
def test_row_survives_its_message_bit_for_bit(contract: Contract) -> None:
    pytest.importorskip("rclpy")
    from dagger_ros.msg import GateDecision

    layout = RowLayout(contract)
    # Random bytes would hold NaNs with payloads and booleans that are neither; draw per field instead.
    rng = np.random.default_rng(0)
    row, back = layout.new(2)
    for name in layout.dtype.names or ():
        field = layout.dtype[name].base
        if field.kind == "f":
            row[name] = rng.normal(size=row[name].shape)
        elif field.kind == "b":
            row[name] = True
        elif field.kind in "iu":
            row[name] = rng.integers(0, 100, size=row[name].shape)
        else:
            row[name] = f"{name} text".encode()
    message = DecisionWriter(GateDecision(), row, contract.sha256).fill(row, "POLICY_STALE")
    assert read_decision(message, back)
    assert back.tobytes() == row.tobytes()
    assert message.contract_sha256 == contract.sha256


@pytest.mark.ros
@pytest.mark.parametrize("frame_id", ["", *("x" * n for n in range(1, 18)), "r\u00f6hre"])
@pytest.mark.parametrize("sha256", ["", "f" * 64, "f" * 63])
@pytest.mark.parametrize("mode", list(Mode))
def test_mode_of_the_bytes_is_that_of_the_message(mode: Mode, sha256: str, frame_id: str) -> None:
    pytest.importorskip("rclpy")
    from rclpy.serialization import serialize_message

    from dagger_ros.msg import GateDecision

    message = GateDecision(mode=int(mode), contract_sha256=sha256, tick=-1, monotonic_ns=-1, reasons=2**64 - 1)
    message.header.frame_id = frame_id
    assert mode_of(serialize_message(message)) == mode


def test_decision_of_another_size_is_refused(peg: Contract, lane: Contract) -> None:
    source = RowLayout(peg).new(1)[0]
    message = SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=0, nanosec=0)))
    for name in ("observation", "privileged", "stamp_ns", "receive_ns", "policy_action", "expert_action"):
        setattr(message, name, source[name])
    assert not read_decision(message, RowLayout(lane).new(1)[0])
