"""From a raw data file to the schema's fields: engineering, cleaning, and a count of what went.

Training and evaluation read files only through `read`, so a row is prepared the same way for
both. A portfolio whose raw table has other columns than its schema names one function in
``training.yaml``, of this module or of any other that Python can import.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.pipeline_model import frame
from credit_risk.schema import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from credit_risk.schema import Schema
    from credit_risk.training.settings import Training

_PARSER = "Error tokenizing data. C error: "
_MONTHS = 6
_SERIOUS_DELAY = 2


@dataclass(frozen=True, slots=True)
class Prepared:
    """Applications with their outcomes, ready to train on or to score.

    ``frame`` has the schema's fields as columns, in order: numbers as float64, categories as
    names, NaN where missing. ``rows`` are the same as numbers (`Schema.vector`). ``kept`` are
    the places of the rows in the raw file, ``dropped`` counts the others by reason, ``mended``
    the values set to missing.
    """

    frame: pd.DataFrame
    rows: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    time: npt.NDArray[np.generic] | None
    kept: npt.NDArray[np.int64]
    rows_read: int
    dropped: dict[str, int]
    mended: dict[str, int]
    sha256: str

    def take(self, places: npt.NDArray[np.int64]) -> tuple[pd.DataFrame, npt.NDArray[np.int64]]:
        """Frame and labels of some rows."""
        return self.frame.iloc[places], self.labels[places]


def read(  # noqa: C901 - one cleaning rule after another
    path: Path, schema: Schema, training: Training, *, unique: bool
) -> Prepared:
    """Read a labelled raw file.

    Args:
        path: CSV or Parquet.
        schema: the portfolio's schema.
        training: names the target, the preparation function and the time column.
        unique: drop exact duplicates of the prepared row and its label (training does).

    Raises:
        DataInvalid: the file cannot be read, lacks a column, a label is not 0 or 1, or no row
            satisfies the schema.
        PortfolioInvalid: the preparation function cannot be imported, or loses rows.
    """
    raw = table(path, schema, training)
    _require(raw, [training.target], path)
    labels = pd.to_numeric(raw[training.target], errors="coerce")
    if not labels.isin([0, 1]).all():
        msg = f"{path}: column {training.target}: a label is neither 0 nor 1"
        raise DataInvalid(msg)
    prepared = fields(raw, path, training)
    _require(prepared, list(schema.names), path)
    rows, out = _coded(prepared, schema)
    keep = np.ones(len(raw), dtype=bool)
    dropped: dict[str, int] = {}
    mended: dict[str, int] = {}

    def drop(which: npt.NDArray[np.bool_], reason: str) -> None:
        number = int((which & keep).sum())
        if number:
            dropped[reason] = number
            keep[which] = False

    for i, spec in enumerate(schema.fields):
        if spec.outside == "missing":
            number = int(out[:, i].sum())
            if number:
                mended[f"{spec.name} outside its range, set to missing"] = number
                rows[out[:, i], i] = np.nan
        else:
            drop(out[:, i], f"{spec.name} outside its range")
        if not spec.nullable:
            drop(np.isnan(rows[:, i]), f"{spec.name} missing")
        if spec.is_category:
            drop(rows[:, i] == UNSEEN, f"{spec.name} of an unknown category")
    if unique:
        whole = pd.DataFrame(rows).assign(label=labels.to_numpy())
        drop(whole.duplicated().to_numpy() & keep, "exact duplicate of another row")
    column = training.hold_out.column
    if column is not None:
        _require(raw, [column], path)
        drop(raw[column].isna().to_numpy(), f"{column} missing")
    kept = np.flatnonzero(keep)
    if len(kept) == 0:
        counts = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items())
        msg = f"{path}: no row satisfies the schema: {len(raw):,} rows read, {counts or 'none'}"
        raise DataInvalid(msg)
    return Prepared(
        frame=frame(rows[kept], schema),
        rows=rows[kept],
        labels=labels.to_numpy(dtype=np.int64)[kept],
        time=None if column is None else raw[column].to_numpy()[kept],
        kept=kept,
        rows_read=len(raw),
        dropped=dropped,
        mended=mended,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def table(path: Path, schema: Schema, training: Training) -> pd.DataFrame:
    """The raw table as it is in the file; categories of the schema that it holds are text.

    Raises:
        DataInvalid: the file cannot be read.
    """
    return _table(path, [] if training.preparation else _categories(schema))


def fields(raw: pd.DataFrame, path: Path, training: Training) -> pd.DataFrame:
    """The raw table as the portfolio's preparation function makes fields of it, row by row.

    Raises:
        DataInvalid: the function misses a column.
        PortfolioInvalid: it cannot be imported, or loses rows.
    """
    if training.preparation is None:
        return raw
    made = _function(training.preparation)(raw, path)
    if len(made) != len(raw):
        msg = f"{training.preparation}: gave {len(made)} rows for {len(raw)}"
        raise PortfolioInvalid(msg)
    return made


def credit_cards(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The seven fields of the credit-cards portfolio, from the UCI table (Yeh 2009).

    PAY_0, PAY_2 ... PAY_6 are the repayment status of six months, latest first: -2 no use, -1
    paid in full, 0 the minimum was paid, 1 and more months of delay. BILL_AMT1 ... 6 and
    PAY_AMT1 ... 6 are the statements and the payments made in the same months.

    - ``num_late_payments``: months with a status of 1 or more, 0 to 6.
    - ``avg_delay``: mean of max(status, 0) over the six months, in months.
    - ``credit_utilisation``: highest of the six statements / LIMIT_BAL. A credit balance
      (negative statement) counts as 0; above 1 means over the limit.
    - ``payment_ratio``: sum of the payments / sum of the positive statements they answer
      (a payment of month m answers the statement of the month before, as in the raw table's
      numbering PAY_AMTk and BILL_AMT(k+1), so five pairs), at most 1; missing when nothing was
      billed or a payment is not stated.
    - ``high_risk_flag``: 1 when the latest status is 2 or more.
    - ``LIMIT_BAL`` and ``AGE``: as they are. SEX, EDUCATION and MARRIAGE are not read.
    """
    status_columns = ["PAY_0", *(f"PAY_{k}" for k in range(2, _MONTHS + 1))]
    bill_columns = [f"BILL_AMT{k}" for k in range(1, _MONTHS + 1)]
    paid_columns = [f"PAY_AMT{k}" for k in range(1, _MONTHS + 1)]
    needed = [*status_columns, *bill_columns, *paid_columns, "LIMIT_BAL", "AGE"]
    _require(raw, needed, path)
    numbers = raw[needed].apply(pd.to_numeric, errors="coerce")
    status = numbers[status_columns].to_numpy(dtype=np.float64)
    billed = np.clip(numbers[bill_columns].to_numpy(dtype=np.float64), 0.0, None)
    paid = numbers[paid_columns].to_numpy(dtype=np.float64)
    limit = numbers["LIMIT_BAL"].to_numpy(dtype=np.float64)
    total_billed = billed[:, 1:].sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        payment_ratio = np.minimum(paid[:, :-1].sum(axis=1) / total_billed, 1.0)
        utilisation = billed.max(axis=1) / limit
    payment_ratio[total_billed == 0] = np.nan
    return pd.DataFrame(
        {
            # A comparison with a missing status is false; the row is dropped for it below.
            "num_late_payments": np.where(
                np.isnan(status).any(axis=1), np.nan, (status >= 1).sum(axis=1)
            ),
            "avg_delay": np.clip(status, 0.0, None).mean(axis=1),
            "credit_utilisation": utilisation,
            "payment_ratio": payment_ratio,
            "high_risk_flag": np.where(
                np.isnan(status[:, 0]), np.nan, status[:, 0] >= _SERIOUS_DELAY
            ),
            "LIMIT_BAL": limit,
            "AGE": numbers["AGE"].to_numpy(dtype=np.float64),
        }
    )


def _categories(schema: Schema) -> list[str]:
    return [spec.name for spec in schema.fields if spec.is_category]


def _table(path: Path, text: Sequence[str]) -> pd.DataFrame:
    """The raw table, with the columns named by ``text`` as text: "1" is a name like any other."""
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".parquet":
                table = pd.read_parquet(file)
                _check_flat(table, path)
                return table.astype({c: "string" for c in text if c in table.columns})
            table = pd.read_csv(
                file,
                keep_default_na=False,
                na_values=[""],
                dtype=dict.fromkeys(text, "string"),
            )
    except pd.errors.EmptyDataError:
        fault = "is empty"
    except pd.errors.ParserError as error:
        fault = f"is not CSV: {str(error).removeprefix(_PARSER).strip()}"
    except UnicodeDecodeError:
        fault = "is not text in UTF-8"
    except (OSError, pa.ArrowInvalid) as error:
        # Arrow's errors of a damaged file are for those who know the format, and have no number.
        number = getattr(error, "errno", None)
        known = f"cannot be read: {os.strerror(number)}" if number else None
        fault = known or "is not a Parquet file, or not a whole one"
    else:
        if isinstance(table.index, pd.RangeIndex):
            return table
        # pandas takes the first values of longer rows for names of the rows, and shifts the others.
        fault = "has more values in a row than names in its first line"
    msg = f"{path} {fault}"
    raise DataInvalid(msg)


def _check_flat(table: pd.DataFrame, path: Path) -> None:
    """See that no column of a Parquet file holds lists or structs."""
    for name in filter(lambda name: pd.api.types.is_object_dtype(table[name]), table.columns):
        if table[name].map(pd.api.types.is_list_like).any():
            msg = f"{path} has lists or structs in column {name}"
            raise DataInvalid(msg)


def _require(table: pd.DataFrame, columns: Sequence[str], path: Path) -> None:
    absent = [c for c in columns if c not in table.columns]
    if absent:
        verb = "is" if len(absent) == 1 else "are"
        msg = f"{path}: column {', '.join(absent)} {verb} missing"
        if len(table.columns) == 1:
            msg += "; there is one column only: are the values separated by commas?"
        raise DataInvalid(msg)


def _coded(
    fields: pd.DataFrame, schema: Schema
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Fields as numbers, and which of them lie outside their range or are no numbers."""
    rows = np.empty((len(fields), len(schema.fields)))
    out = np.zeros(rows.shape, dtype=bool)
    for i, spec in enumerate(schema.fields):
        column = fields[spec.name]
        if spec.is_category:
            codes = {c: float(j) for j, c in enumerate(spec.categories)}
            known = column.map(codes).to_numpy(dtype=np.float64)
            rows[:, i] = np.where(column.isna(), np.nan, np.where(np.isnan(known), UNSEEN, known))
            continue
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
        fractional = (values != np.floor(values)) if spec.type == "integer" else np.False_
        unreadable = np.isnan(values) & column.notna().to_numpy()
        out[:, i] = unreadable | (
            ~np.isnan(values) & ((values < spec.minimum) | (values > spec.maximum) | fractional)
        )
        rows[:, i] = values
    return rows, out


def _function(name: str) -> Callable[[pd.DataFrame, Path], pd.DataFrame]:
    module, _, attribute = name.partition(":")
    try:
        function: Callable[[pd.DataFrame, Path], pd.DataFrame] = getattr(
            import_module(module), attribute
        )
    except (ImportError, AttributeError, TypeError) as error:
        msg = (
            f"training.yaml: preparation {name} cannot be imported: {error}. Is the folder of "
            "its module on PYTHONPATH?"
        )
        raise PortfolioInvalid(msg) from error
    return function
