"""From an application's numbers to the model's columns, without a DataFrame.

The encoder is what the fitted scikit-learn pipeline's preparation does, written as data: one
`Column` for each column the estimator sees. It is compiled from the fitted pipeline when a
package is made (``credit_risk.training.compilation``) and gives the same float32 numbers.
"""

from __future__ import annotations

import copy
import math
import operator
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numba import njit
from pydantic import Field, model_validator

from credit_risk.documents import Document
from credit_risk.errors import PackageInvalid
from credit_risk.schema import UNSEEN

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.schema import Schema

_NUMBER, _RATIO, _INDICATOR, _MISSING, _LOOKUP = 0, 1, 2, 3, 4
_KIND = {
    "number": _NUMBER,
    "ratio": _RATIO,
    "indicator": _INDICATOR,
    "missing": _MISSING,
    "lookup": _LOOKUP,
}


class Column(Document):
    """One column the estimator sees.

    - ``number``: the field, ``fill`` where missing, then log(1 + x) if ``log``, then
      ``(x - center) / scale`` if scaled, then held between 0 and 1 if a ``ramp``;
    - ``ratio``: field / ``denominator``, each filled where missing, scaled and held likewise;
    - ``indicator``: 1 where the field's category is ``category``, ``fill`` being the category
      code that stands in for a missing value;
    - ``missing``: 1 where the field is missing;
    - ``lookup``: ``values[code]`` of the field's category, the last of them for one that the
      schema does not list; NaN where the field is missing, unless ``fill`` is a code.

    A split on a set of categories is a split on a lookup. All lookups of a field stand for the one
    column that the estimator has in their place. ``factor`` is the application field that the
    column's contribution is reported under.
    """

    name: str
    kind: Literal["number", "ratio", "indicator", "missing", "lookup"]
    field: str
    factor: str
    fill: float = 0.0
    denominator: str | None = None
    denominator_fill: float = 0.0
    category: int = 0
    values: Annotated[tuple[float, ...], Field(exclude_if=operator.not_)] = ()
    log: bool = False
    center: float = 0.0
    scale: Annotated[float, Field(gt=0.0)] = 1.0
    ramp: bool = False

    @model_validator(mode="after")
    def _has_a_denominator(self) -> Column:
        if (self.kind == "ratio") != (self.denominator is not None):
            msg = f"{self.name}: a ratio, and only a ratio, has a denominator"
            raise ValueError(msg)
        return self


class Encoder(Document):
    """The columns, in the estimator's order."""

    columns: tuple[Column, ...]

    def plan(self, schema: Schema) -> Plan:
        """Resolve field names against the schema; see `Plan`.

        Raises:
            PackageInvalid: a column reads a field that the schema does not have.
        """
        return Plan(self, schema)


class Plan:
    """An encoder resolved to arrays, ready to encode rows.

    ``factors`` holds the field that each column is reported under, ``players`` the first of the
    columns that stand for the same column of the estimator; both of shape (columns,).
    """

    def __init__(self, encoder: Encoder, schema: Schema) -> None:
        columns = encoder.columns
        index = schema.index
        for c in columns:
            for name in (c.field, c.factor, c.denominator or c.field):
                if name not in index:
                    msg = f"encoder: column {c.name} reads {name}, which is not a field"
                    raise PackageInvalid(msg)
            known = len(schema.fields[index[c.field]].categories)
            if c.kind == "lookup" and not _fits(c, known):
                msg = f"encoder: column {c.name} does not fit the categories of {c.field}"
                raise PackageInvalid(msg)
        self._kernel = _encode
        self.names: tuple[str, ...] = tuple(c.name for c in columns)
        self.factors: npt.NDArray[np.int32] = np.array(
            [index[c.factor] for c in columns], dtype=np.int32
        )
        first: dict[str, int] = {}
        self.players: npt.NDArray[np.int32] = np.array(
            [
                first.setdefault(c.field, i) if c.kind == "lookup" else i
                for i, c in enumerate(columns)
            ],
            dtype=np.int32,
        )
        # By code and one more, so that `UNSEEN` is the first.
        values = np.zeros((len(columns), max((len(c.values) for c in columns), default=0)))
        for i, c in enumerate(columns):
            values[i, : len(c.values)] = (*c.values[-1:], *c.values[:-1])
        self._arguments = (
            np.array([_KIND[c.kind] for c in columns], dtype=np.int8),
            np.array([index[c.field] for c in columns], dtype=np.int32),
            np.array([c.fill for c in columns], dtype=np.float64),
            np.array([index[c.denominator or c.field] for c in columns], dtype=np.int32),
            np.array([c.denominator_fill for c in columns], dtype=np.float64),
            np.array([float(c.category) for c in columns], dtype=np.float64),
            values,
            np.array([c.log for c in columns], dtype=np.bool_),
            np.array([c.center for c in columns], dtype=np.float64),
            np.array([c.scale for c in columns], dtype=np.float64),
            np.array([c.ramp for c in columns], dtype=np.bool_),
        )

    def encode(self, rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        """Encode applications.

        Args:
            rows: shape (n, fields), see `Schema.vector`.

        Returns:
            Shape (n, columns), what the estimator was trained on.
        """
        encoded: npt.NDArray[np.float32] = self._kernel(rows, *self._arguments)
        return encoded

    def unlocked(self) -> Plan:
        """The same plan, encoding without the interpreter's lock: for threads side by side."""
        plan = copy.copy(self)
        plan._kernel = _encode_unlocked  # noqa: SLF001 - of the same class
        return plan


def _fits(column: Column, known: int) -> bool:
    """Whether a lookup has a value for each of so many categories, and for its fill."""
    filled = math.isnan(column.fill) or column.fill in range(int(UNSEEN), known)
    return known > 0 and len(column.values) == known + 1 and filled


@njit(cache=True, error_model="numpy")
def _encode(  # type: ignore[no-untyped-def]  # noqa: PLR0917, C901 - arrays of one plan
    rows, kind, field, fill, denominator, denominator_fill, category, values,
    log, center, scale, ramp,
):  # fmt: skip
    n, columns = rows.shape[0], kind.shape[0]
    out = np.empty((n, columns), dtype=np.float32)
    for r in range(n):
        for c in range(columns):
            value = rows[r, field[c]]
            missing = np.isnan(value)
            if kind[c] == _MISSING:
                out[r, c] = 1.0 if missing else 0.0
                continue
            if missing:
                value = fill[c]
            if kind[c] == _LOOKUP:
                value = np.nan if np.isnan(value) else values[c, np.int64(value) + 1]
            elif kind[c] == _INDICATOR:
                value = 1.0 if value == category[c] else 0.0
            elif kind[c] == _RATIO:
                below = rows[r, denominator[c]]
                value /= denominator_fill[c] if np.isnan(below) else below
            if log[c]:
                value = np.log1p(value)
            value = (value - center[c]) / scale[c]
            if ramp[c] and value < 0.0:
                value = 0.0
            elif ramp[c] and value > 1.0:
                value = 1.0
            out[r, c] = value
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _encode_unlocked(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    rows, kind, field, fill, denominator, denominator_fill, category, values,
    log, center, scale, ramp,
):  # fmt: skip
    return _encode(
        rows, kind, field, fill, denominator, denominator_fill, category, values,
        log, center, scale, ramp,
    )  # fmt: skip
