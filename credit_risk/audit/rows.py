"""Rows of the table of records, and whether one is as a server wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from credit_risk.audit.chain import Content
from credit_risk.audit.tables import RECORDS

if TYPE_CHECKING:
    import sqlalchemy as sa

_C = RECORDS.c
COLUMNS: list[sa.Column[Any]] = [
    _C.sequence,
    *(_C[name] for name in Content._fields),
    *(_C.data_key, _C.previous, _C.hash),
]
"""In the order in which rows are read and written."""
_MAY_BE_NULL = {"time", "portfolio", "request_id", "model_version", "policy_version"} | {
    *("decision", "status", "about", "body", "sealed", "data_key")
}
_PYTHON_TYPES = [column.type.python_type for column in COLUMNS]
_WHOLE = [1 + Content._fields.index(name) for name in ("time", "portfolio", "request_id", "body")]


def are_sound(types: tuple[type, ...]) -> bool:
    """Whether a row's values are of the types that `COLUMNS` have; SQLite keeps others, too."""
    expired = types[_WHOLE[-1]] is type(None)
    for column, wanted, found in zip(COLUMNS, _PYTHON_TYPES, types, strict=True):
        if found is type(None):
            if column.name not in _MAY_BE_NULL:
                return False
        elif found is not wanted or (expired and column.name in _MAY_BE_NULL):
            return False
    missing = [types[place] is type(None) for place in _WHOLE]
    return all(missing) or not any(missing)
