"""Rows of the table of records: which values a server can have written."""

from __future__ import annotations

import pytest

from credit_risk.audit.rows import COLUMNS, are_sound

NAMES = [column.name for column in COLUMNS]
WHOLE: dict[str, type] = {column.name: column.type.python_type for column in COLUMNS}
LEFT = ("sequence", "id", "kind", "previous", "hash")
"""What retention leaves of a record."""
TAKEN = {name: WHOLE[name] if name in LEFT else type(None) for name in NAMES}


def sound(types: dict[str, type]) -> bool:
    """Whether a row of these types is."""
    return are_sound(tuple(types[name] for name in NAMES))


def test_a_record_and_what_retention_leaves_of_one_are_sound() -> None:
    """With and without what a record need not have."""
    assert sound(WHOLE)
    assert sound(TAKEN)
    assert sound(WHOLE | {"decision": type(None), "sealed": type(None), "data_key": type(None)})


@pytest.mark.parametrize("name", NAMES)
def test_another_type_is_not(name: str) -> None:
    """Whatever the column."""
    assert not sound(WHOLE | {name: float})


@pytest.mark.parametrize("name", ["id", "hash", "previous", "time", "portfolio", "body"])
def test_what_every_record_has_cannot_be_missing(name: str) -> None:
    """Only retention takes a time, and then all of the rest."""
    assert not sound(WHOLE | {name: type(None)})


@pytest.mark.parametrize("name", ["time", "status", "data_key", "body"])
def test_retention_leaves_nothing_else(name: str) -> None:
    """A row without a body that has any of the rest was not made by it."""
    assert not sound(TAKEN | {name: WHOLE[name]})
