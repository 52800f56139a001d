from __future__ import annotations

import numpy as np
import pytest

from dagger_ros.contract import Contract, RowLayout, RowView
from dagger_ros.contract.view import VECTORS


def test_view_reads_and_writes_the_row_itself(contract: Contract) -> None:
    layout = RowLayout(contract)
    rows = layout.new(3)
    view = RowView.of(rows[1])
    assert RowView.of(view) is view
    view["tick"], view["policy"] = 7, b"pi_001"
    for name in VECTORS:
        getattr(view, name)[:] = 2
        assert (rows[1][name] == 2).all()
    assert (rows[1]["tick"], view["tick"], view["policy"]) == (7, 7, b"pi_001")
    assert bytes(view.bytes) == rows[1].tobytes()
    assert rows[[0, 2]].tobytes() == layout.new(2).tobytes()


def test_numbers_are_those_of_the_fields_in_order(contract: Contract) -> None:
    layout = RowLayout(contract)
    rows = layout.new(2)
    row = rows[1]
    row["time_ns"], row["reasons"], row["doubt"], row["label_source"], row["help"] = 5, 2**63, 0.25, -1, True
    row["executed_action"], row["policy"] = 0.5, b"pi"
    names = ("time_ns", "reasons", "executed_action", "doubt", "help", "label_source", "policy")
    actions = [0.5] * layout.action_size
    read = layout.numbers(*names, gaps=True).read(RowView(row))
    assert read == (5, 2**63, *actions, 0.25, True, -1, b"pi".ljust(32, b"\0"))
    assert [type(value) for value in read[:2]] == [int, int]


def test_written_numbers_change_nothing_else(contract: Contract) -> None:
    layout = RowLayout(contract)
    rows, expected = layout.new(2), layout.new(2)
    numbers = layout.numbers("mode", "reasons")
    numbers.write(RowView(rows[0]), 3, 2**63 + 1)
    expected[0]["mode"], expected[0]["reasons"] = 3, 2**63 + 1
    assert rows.tobytes() == expected.tobytes()
    assert numbers.pack(3, 2**63 + 1) == bytes(RowView(rows[0]).bytes[numbers.start : numbers.end])


@pytest.mark.parametrize(("names", "gaps"), [(("mode", "doubt"), False), (("reasons", "mode"), True)])
def test_numbers_that_are_not_side_by_side_are_refused_where_that_matters(
    peg: Contract, names: tuple[str, ...], gaps: bool
) -> None:
    with pytest.raises(ValueError, match="expected fields of the row beside each other, in its order"):
        RowLayout(peg).numbers(*names, gaps=gaps)


def test_view_of_rows_that_cannot_be_written_reads(peg: Contract) -> None:
    layout = RowLayout(peg)
    rows = np.frombuffer(layout.new(1).tobytes(), layout.dtype)
    assert layout.numbers("round").read(RowView(rows[0])) == (-1,)
    with pytest.raises(TypeError):
        layout.numbers("round").write(RowView(rows[0]), 1)
