"""Bulk scoring: a file of applications, in blocks of rows, to a file of decisions.

The same schema, encoder, model, policy and reasons decide as for a request, a column at a time
(`Scorer`). A row that cannot be decided keeps its place in the output, empty, and what is wrong
with it goes to a side file, by row and JSON pointer and in the words of the server.

A run can be killed at any time and started again (`score_file`): fixed ranges of rows become part
files beside the output, each whole or absent, and a manifest ties them to the input's bytes, the
package and the options. The output appears once, complete.

Parquet and Arrow come with pyarrow, of the extra ``train``: a server does not import this module.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import io
import json
import os
import secrets
import time
from array import array
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from credit_risk import __version__
from credit_risk.errors import (
    ApplicationInvalid,
    DataInvalid,
    ExplanationFailed,
    FieldError,
    OutputRefused,
)
from credit_risk.model import check_additivity, probability, unlocked
from credit_risk.policy import BAND_ORDER, DECISIONS
from credit_risk.schema import UNSEEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    import numpy.typing as npt

    from credit_risk.package import ModelPackage
    from credit_risk.policy import Outcomes
    from credit_risk.schema import FieldSpec

    Floats = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]
    Kind = Literal["csv", "parquet"]
    Progress = Callable[[int, int | None], None]

ROWS_PER_PART = 131_072
"""Rows scored, and lost by a kill, at a time: about 60 MB while they are worked on."""
EXPLAINED_ROWS = 8_192
"""Rows explained at a time."""
MANIFEST = "manifest.json"
_CHECKED_ROWS = 8_192
"""Doubtful rows that are Python objects at a time."""

ANSWER_COLUMNS = (
    "row",
    "probability_of_default",
    "prediction",
    "risk_band",
    "decision",
    "rules",
    "model_version",
    "policy_version",
    "reasons",
)
ERRORS_SUFFIX = ".errors.jsonl"
FAULT = "row fault"
"""Column of a table read from CSV: why a row could not be read, null where it could."""
_FORMAT = 1
_PARTS = "part-*.arrow"
_CSV_BLOCK = 8 << 20
"""Characters read at a time."""
_BYTES_MAX = 4
"""Of a character in UTF-8."""
_REPLACED = "\ufffd"
"""What Python reads where bytes are not UTF-8."""
_UNEVEN_AT_ONCE = 65_536
"""Rows of a wrong number of values that are put back in one go."""
# A number as CSV holds it. Arrow's own conversion would take "nan" and "inf" as well.
_NUMBER = r"^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked for beyond the answers.

    ``keep`` are columns of the input to carry over, ``reasons`` adds the reason codes, and with
    ``strict`` a column that is neither a field nor kept is an error.
    """

    keep: tuple[str, ...] = ()
    reasons: bool = False
    strict: bool = False


@dataclass(frozen=True, slots=True)
class RowError:
    """What is wrong with one place of one row; rows are counted from 0."""

    row: int
    error: FieldError

    def to_json(self) -> dict[str, int | str]:
        """As a line of the side file holds it."""
        return {"row": self.row, "pointer": self.error.pointer, "detail": self.error.detail}


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did; ``decisions`` and ``bands`` count the rows scored."""

    rows: int
    scored: int
    refused: int
    decisions: dict[str, int]
    bands: dict[str, int]
    rows_resumed: int
    seconds: float
    portfolio: str
    model_version: str
    policy_version: str
    output: str
    errors: str

    def to_json(self) -> dict[str, Any]:
        """As ``--json`` prints it."""
        return asdict(self)


class Scorer:
    """A package, ready to score tables of applications; threads may share it.

    ``text`` says that the tables come from CSV, where numbers are text as well.
    """

    def __init__(self, package: ModelPackage, options: Options, *, text: bool = False) -> None:
        self.package = package
        self.options = options
        self._text = text
        self._model = unlocked(package.model)

    def check(self, schema: pa.Schema, source: Path, into: Kind) -> None:
        """Check the columns of a table that comes from ``source``, before any of it is read.

        Raises:
            DataInvalid: a field or a column to keep is missing or there twice, a field's type is
                one that no application has, a kept column has the name of an answer or cannot be
                written ``into`` what is asked for, or one is unknown and the options are strict.
        """
        columns = schema.names
        names = self.package.schema.names
        keep = self.options.keep
        missing = [name for name in dict.fromkeys((*names, *keep)) if name not in columns]
        if missing:
            told = f"{source} has no column {', '.join(missing)}"
            if len(columns) == 1:
                told += "; it has a single one: are its values separated by commas?"
            raise DataInvalid(told)
        present = Counter(columns)
        twice = [name for name in dict.fromkeys((*names, *keep)) if present[name] > 1]
        if twice:
            raise DataInvalid(f"{source} has column {', '.join(twice)} more than once")
        answers = (*ANSWER_COLUMNS, FAULT)
        taken = [name for name in keep if name in answers or keep.count(name) > 1]
        if taken:
            raise DataInvalid(f"column {taken[0]} cannot be kept: the output has one of that name")
        unknown = [name for name in columns if name not in names and name not in keep]
        if unknown and self.options.strict:
            raise DataInvalid(f"{source} has unknown columns: {', '.join(unknown)}")
        if not self._text:
            self._check_types(schema, source)
        if into == "csv":
            for name in keep:
                _check_writable(schema, name, source)

    def _check_types(self, schema: pa.Schema, source: Path) -> None:
        """Check that each field's column is of a type whose values can be right."""
        wrong = []
        for spec in self.package.schema.fields:
            kind = _value_type(schema, spec.name)
            if not _may_hold(kind, spec):
                right = "text" if spec.is_category else "numbers"
                wrong.append(f"column {spec.name} is {kind} and has to be {right}")
        if wrong:
            raise DataInvalid(f"{source}: {'; '.join(wrong)}")

    @cached_property
    def columns(self) -> list[str]:
        """The columns of the input that are read."""
        return list(dict.fromkeys((*self.package.schema.names, *self.options.keep)))

    def score(
        self, table: pa.Table, first: int | npt.NDArray[np.int64]
    ) -> tuple[pa.Table, list[RowError]]:
        """Score a table that has `columns`, and `FAULT` if some of its rows could not be read.

        Args:
            table: some rows of the input.
            first: number of its first row, or the numbers of all its rows.

        Returns:
            One row of answers for each row of the table, in order, and what is wrong with the
            rows whose answers are empty.

        Raises:
            ExplanationFailed: the model gives no finite score, or contributions do not add up.
        """
        numbers = np.arange(first, first + len(table)) if isinstance(first, int) else first
        rows, invalid = self._rows(table)
        places = np.ones(len(rows), dtype=np.bool_)
        places[list(invalid)] = False
        decided = np.flatnonzero(places)
        chosen = rows if len(decided) == len(rows) else rows[decided]
        log_odds = self._model.log_odds(chosen) if len(chosen) else np.empty(0)
        if not np.isfinite(log_odds).all():
            raise ExplanationFailed("the model's score is not a finite number")
        pds = probability(log_odds)
        outcomes = self.package.policy.decide_rows(pds, chosen, self.package.schema)
        codes: list[tuple[str, ...]] = []
        if self.options.reasons:
            codes, without = self._reasons(chosen, log_odds, outcomes)
            for i, error in without.items():
                invalid[int(decided[i])] = (error,)
        answers = self._answers(table, numbers, decided, pds, outcomes, codes, invalid)
        errors = [
            RowError(int(numbers[row]), error) for row in sorted(invalid) for error in invalid[row]
        ]
        return answers, errors

    def _rows(self, table: pa.Table) -> tuple[Floats, dict[int, tuple[FieldError, ...]]]:
        """The table as numbers, shape (n, fields), and the errors of rows that are not valid.

        Columns are checked at once. Rows in which a check finds anything go through the schema's
        own validation, one by one: what it says holds, and its words are the server's.
        """
        schema = self.package.schema
        rows = np.empty((len(table), len(schema.fields)), dtype=np.float64)
        invalid = _unread(table)
        suspect = np.zeros(len(table), dtype=np.bool_)
        for place, spec in enumerate(schema.fields):
            values, doubtful = _coded(spec, table.column(spec.name), text=self._text)
            rows[:, place] = values
            suspect |= doubtful
        suspect[list(invalid)] = False
        places = np.flatnonzero(suspect)
        fields = table.select(schema.names)
        for start in range(0, len(places), _CHECKED_ROWS):
            some = places[start : start + _CHECKED_ROWS]
            for row, cells in zip(some.tolist(), fields.take(some).to_pylist(), strict=True):
                try:
                    checked = schema.validate_application(self._sent(cells))
                except ApplicationInvalid as error:
                    invalid[row] = error.errors
                else:
                    rows[row] = schema.vector(checked)
        return rows, invalid

    def _sent(self, cells: dict[str, Any]) -> dict[str, Any]:
        """A row as somebody would send it to the server."""
        return {
            spec.name: _sent(cells[spec.name], number=self._text and not spec.is_category)
            for spec in self.package.schema.fields
        }

    def _reasons(
        self, rows: Floats, log_odds: Floats, outcomes: Outcomes
    ) -> tuple[list[tuple[str, ...]], dict[int, FieldError]]:
        """Reason codes of each row, and the rows that should have one and have none."""
        give = self.package.grouping.give
        codes: list[tuple[str, ...]] = [()] * len(rows)
        without: dict[int, FieldError] = {}
        adverse = np.flatnonzero(outcomes.decisions != DECISIONS.index("APPROVE"))
        by_score = outcomes.scored == outcomes.decisions
        for start in range(0, len(adverse), EXPLAINED_ROWS):
            some = adverse[start : start + EXPLAINED_ROWS]
            explained = some[by_score[some]]
            contributions = {}
            if len(explained):
                values = self._model.contributions(rows[explained])
                check_additivity(log_odds[explained], self._model.base_value, values)
                contributions = dict(zip(explained.tolist(), values, strict=True))
            for i in some.tolist():
                try:
                    reasons = give(outcomes[i], contributions.get(i))
                except ExplanationFailed as error:
                    without[i] = FieldError("", str(error))
                else:
                    codes[i] = tuple(reason.code for reason in reasons)
        return codes, without

    def _answers(  # noqa: PLR0917 - the columns
        self,
        table: pa.Table,
        numbers: npt.NDArray[np.int64],
        decided: npt.NDArray[np.intp],
        pds: Floats,
        outcomes: Outcomes,
        codes: list[tuple[str, ...]],
        invalid: dict[int, tuple[FieldError, ...]],
    ) -> pa.Table:
        size = len(table)
        empty = np.zeros(size, dtype=np.bool_)
        empty[list(invalid)] = True

        def whole(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            if len(decided) == size:
                return values
            spread = np.zeros((size, *values.shape[1:]), dtype=values.dtype)
            spread[decided] = values
            return spread

        def named(places: npt.NDArray[Any], names: Sequence[str]) -> pa.Array:
            indices = pa.array(whole(places).astype(np.int8), mask=empty)
            return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string()))

        def constant(name: str) -> pa.Array:
            return named(np.zeros(len(decided), dtype=np.int8), [name])

        package = self.package
        fired = whole(outcomes.rules)
        fired[empty] = False
        rule_names = pa.array([rule.name for rule in package.policy.rules], pa.string())
        columns: dict[str, Any] = {"row": pa.array(numbers, pa.int64())}
        columns |= {name: _plain(table.column(name)) for name in self.options.keep}
        columns |= {
            "probability_of_default": pa.array(whole(pds), mask=empty),
            "prediction": pa.array(whole(outcomes.predictions), mask=empty),
            "risk_band": named(outcomes.bands, BAND_ORDER),
            "decision": named(outcomes.decisions, DECISIONS),
            "rules": pa.ListArray.from_arrays(
                _offsets(fired.sum(axis=1)),
                rule_names.take(pa.array(np.nonzero(fired)[1])),
                mask=pa.array(empty),
            ),
            "model_version": constant(package.version),
            "policy_version": constant(package.policy_version),
        }
        if self.options.reasons:
            counts = whole(np.array([len(row) for row in codes], dtype=np.int64))
            columns["reasons"] = pa.ListArray.from_arrays(
                _offsets(counts),
                pa.array([code for row in codes for code in row], pa.string()),
                mask=pa.array(empty),
            )
        return pa.table(columns)


def _unread(table: pa.Table) -> dict[int, tuple[FieldError, ...]]:
    """The rows of a table that could not be read, and why."""
    if FAULT not in table.column_names:
        return {}
    told = table.column(FAULT)
    rows = np.flatnonzero(_mask(_whole(told).is_valid()))
    details = told.drop_null().to_pylist()
    return {row: (FieldError("", d),) for row, d in zip(rows.tolist(), details, strict=True)}


def _value_type(schema: pa.Schema, name: str) -> pa.DataType:
    """The type of a column's values, be they in a dictionary or not."""
    kind = schema.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _check_writable(schema: pa.Schema, name: str, source: Path) -> None:
    """Check that a column to keep is of a type that Arrow writes as CSV."""
    kind = _value_type(schema, name)
    try:
        pa.csv.CSVWriter(pa.BufferOutputStream(), pa.schema([(name, kind)])).close()
    except pa.ArrowException:
        told = f"column {name} of {source} cannot be kept in CSV: it is {kind}"
        raise DataInvalid(told) from None


def _may_hold(kind: pa.DataType, spec: FieldSpec) -> bool:
    """Whether a value of the type can be right in a field, null aside."""
    if pa.types.is_null(kind):
        return True
    if spec.is_category:
        return _is_text(kind)
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _coded(spec: FieldSpec, column: pa.ChunkedArray, *, text: bool) -> tuple[Floats, Mask]:
    """A column as numbers, see `Schema.vector`, and where the schema may not allow what is there.

    Null and NaN are missing values.
    """
    array = _whole(column)
    if spec.is_category:
        values, missing = _category_codes(spec, array)
        doubtful = values == UNSEEN
    else:
        values, missing = _numbers(array, text=text)
        least, most = np.array([spec.minimum, spec.maximum], dtype=np.float64)
        # Written so that what is not a number fails too.
        doubtful = ~((values >= least) & (values <= most))
        if spec.type == "integer":
            doubtful |= values != np.floor(values)
    return values, np.where(missing, not spec.nullable, doubtful)


def _numbers(array: pa.Array, *, text: bool) -> tuple[Floats, Mask]:
    missing = _mask(array.is_null())
    if text and _is_text(array.type):
        numeric = pc.match_substring_regex(array, _NUMBER)
        array = pc.cast(pc.if_else(numeric, array, pa.scalar(None, array.type)), pa.float64())
    elif pa.types.is_decimal(array.type):
        array = pc.cast(array, pa.float64())
    elif not (pa.types.is_integer(array.type) or pa.types.is_floating(array.type)):
        return np.full(len(array), np.nan), missing
    values: Floats = array.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    if not text:
        missing = np.isnan(values)
    return values, missing


def _category_codes(spec: FieldSpec, array: pa.Array) -> tuple[Floats, Mask]:
    missing = _mask(array.is_null())
    names = pa.array(spec.categories, pa.string())
    if isinstance(array, pa.DictionaryArray) and _is_text(array.type.value_type):
        of_name = pc.index_in(_cast(array.dictionary, pa.string()), names)
        codes = of_name.take(array.indices)
    elif _is_text(array.type):
        codes = pc.index_in(_cast(array, pa.string()), names)
    else:
        return np.full(len(array), UNSEEN), missing
    values = pc.fill_null(codes, int(UNSEEN)).to_numpy(zero_copy_only=False).astype(np.float64)
    values[missing] = np.nan
    return values, missing


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array, dictionaries of several chunks made one."""
    chunked = column.unify_dictionaries() if pa.types.is_dictionary(column.type) else column
    joined = chunked.combine_chunks()
    # Of no rows at all, older versions give the chunked array back.
    return joined if isinstance(joined, pa.Array) else pa.array([], column.type)


def _cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else pc.cast(array, kind)


def _mask(array: pa.Array) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _sent(value: object, *, number: bool) -> object:
    """A cell as JSON would hold it: NaN is null, and text of a number that number."""
    if isinstance(value, str) and number and pc.match_substring_regex(value, _NUMBER).as_py():
        return float(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if not isinstance(value, (float, Decimal)):
        return str(value)
    return None if np.isnan(as_float := float(value)) else as_float


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A kept column without its dictionary, which differs from part to part."""
    kind = column.type
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def _offsets(counts: npt.NDArray[Any]) -> pa.Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())


@dataclass(frozen=True, slots=True)
class Input:
    """A file to score: its columns, its number of rows where known, and its rows.

    ``batches`` gives tables with the number of their first row, in order; it may leave out rows
    that ``wanted(first, end)`` does not want any of.
    """

    schema: pa.Schema
    rows: int | None
    batches: Callable[[Callable[[int, int], bool]], Iterator[tuple[int, pa.Table]]]


def open_input(path: Path, scorer: Scorer, rows_at_once: int, into: Kind) -> Input:
    """Open a file and check its columns.

    Raises:
        DataInvalid: not one that can be read, or see `Scorer.check`.
    """
    opened = (_csv if _kind_of(path) == "csv" else _parquet)(path, scorer, rows_at_once)
    scorer.check(opened.schema, path, into)
    return opened


def _kind_of(path: Path) -> Kind:
    """What a file holds, by its name.

    Raises:
        DataInvalid: neither of the two.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix == "csv":
        return "csv"
    if suffix == "parquet":
        return "parquet"
    raise DataInvalid(f"{path}: its name ends in neither .parquet nor .csv")


def _parquet(path: Path, scorer: Scorer, rows_at_once: int) -> Input:
    try:
        plain = pa.parquet.read_schema(path)
        # Categories as codes from the start: the file holds them as codes as well.
        coded = [
            spec.name
            for spec in scorer.package.schema.fields
            if spec.is_category and plain.get_field_index(spec.name) >= 0
            if _is_text(plain.field(spec.name).type)
        ]
        file = pa.parquet.ParquetFile(path, read_dictionary=coded)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]

    def batches(wanted: Callable[[int, int], bool]) -> Iterator[tuple[int, pa.Table]]:
        first = 0
        for group, size in enumerate(sizes):
            if wanted(first, first + size):
                at = first
                for batch in _read(
                    file.iter_batches(
                        rows_at_once, row_groups=[group], columns=scorer.columns, use_threads=True
                    ),
                    path,
                ):
                    yield at, pa.Table.from_batches([batch])
                    at += len(batch)
            first += size
        if not sum(sizes):
            yield 0, file.schema_arrow.empty_table().select(scorer.columns)

    return Input(plain, file.metadata.num_rows, batches)


def _csv(path: Path, scorer: Scorer, _rows_at_once: int) -> Input:
    try:
        # More is read than the header: whether it is UTF-8 is only asked of the names.
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            names = tuple(next(csv.reader(file), ()))
        "".join(names).encode()
    except OSError as error:
        raise DataInvalid(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeError, csv.Error) as error:
        raise DataInvalid(f"{path} is not CSV in UTF-8") from error
    if not names:
        raise DataInvalid(f"{path} is empty")

    def batches(_wanted: Callable[[int, int], bool]) -> Iterator[tuple[int, pa.Table]]:
        return _csv_tables(path, scorer.columns, len(names))

    schema = pa.schema([(name, pa.string()) for name in names])
    return Input(schema, None, batches)


def _csv_tables(path: Path, columns: list[str], width: int) -> Iterator[tuple[int, pa.Table]]:
    """Columns of a CSV file of so many, and `FAULT`, with the number of each table's first row."""
    # Row and number of values of those that Arrow leaves out, until they are put back. Python
    # objects would be a gigabyte where each row of a large file has a comma too many.
    uneven = array("q"), array("q")
    # A row after the last that nobody else's file has: who swallows it has an open quotation.
    seal = secrets.token_hex(16) + "," * width
    sealed = False

    def leave_out(row: pa.csv.InvalidRow) -> str:
        nonlocal sealed
        if row.text == seal:
            sealed = True
        else:
            uneven[0].append(row.number - 2)  # counted from 1, the header
            uneven[1].append(row.actual_columns)
        return "skip"

    first = 0
    none = np.empty(0, dtype=np.int64)
    with _naming(path), path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            reader = pa.csv.open_csv(
                _Sealed(file, f"\n{seal}"),
                # Only one thread alone knows the number of a row.
                read_options=pa.csv.ReadOptions(
                    block_size=_BYTES_MAX * _CSV_BLOCK, use_threads=False
                ),
                parse_options=pa.csv.ParseOptions(
                    newlines_in_values=True, invalid_row_handler=leave_out
                ),
                convert_options=pa.csv.ConvertOptions(
                    include_columns=columns,
                    column_types=dict.fromkeys(columns, pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
            empty = reader.schema.empty_table()
            yield 0, _with_faults(empty, none, none, width)
            for table in chain((pa.Table.from_batches([batch]) for batch in reader), [empty]):
                for piece in _put_back(table, first, uneven, width):
                    yield first, piece
                    first += len(piece)
        except pa.ArrowException:
            # Arrow's own message may quote the row.
            raise _without_end(path, first + len(uneven[0])) from None
    if not sealed:
        raise _without_end(path, first - 1)


def _without_end(path: Path, row: int) -> DataInvalid:
    return DataInvalid(
        f"{path}: row {row} cannot be read: it is longer than {_CSV_BLOCK >> 20} MiB, or a "
        "quotation mark in it is not closed"
    )


class _Sealed(io.RawIOBase):
    """The bytes of a text file and of an end put to it."""

    def __init__(self, file: TextIO, end: str) -> None:
        self._file = file
        self._end = end

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        text = self._file.read(size // _BYTES_MAX)
        if not text:
            text, self._end = self._end, ""
        return text.encode()


def _put_back(
    table: pa.Table, first: int, uneven: tuple[array[int], array[int]], width: int
) -> Iterator[pa.Table]:
    """A table of CSV with the rows that were left out of it, as far as they are not behind it.

    Args:
        table: rows of the file.
        first: number of the first of them or of those left out before them.
        uneven: rows and numbers of values of those left out; the ones put back are removed.
        width: number of values that a row has to have.
    """
    left = True
    while left:
        some = [np.array(column[:_UNEVEN_AT_ONCE]) for column in uneven]
        # Rows of the table before each of them.
        before = some[0] - first - np.arange(len(some[0]))
        number = int(np.searchsorted(before, len(table), "right"))
        left = number == _UNEVEN_AT_ONCE
        end = int(before[-1]) if left else len(table)
        if end + number:
            yield _with_faults(table.slice(0, end), before[:number], some[1][:number], width)
        for column in uneven:
            del column[:number]
        first, table = first + end + number, table.slice(end)


def _with_faults(
    table: pa.Table,
    before: npt.NDArray[np.int64],
    sizes: npt.NDArray[np.int64],
    width: int,
) -> pa.Table:
    """A table with a column `FAULT`, and with the rows left out of it as null ones."""
    places = np.insert(np.arange(len(table)), before, -1)
    lost = np.flatnonzero(places < 0)
    if len(lost):
        table = table.take(pa.array(places, mask=places < 0))
    told: list[str | None] = [None] * len(places)
    for row, size in zip(lost.tolist(), sizes.tolist(), strict=True):
        told[row] = f"Row has {size} values, the header {width}"
    for name in table.column_names:
        lossy = pc.fill_null(pc.match_substring(_whole(table.column(name)), _REPLACED), False)
        for row in np.flatnonzero(_mask(lossy)).tolist():
            told[row] = f"Column {name} is not UTF-8"
    return table.append_column(FAULT, pa.array(told, pa.string()))


def _read(batches: Iterator[pa.RecordBatch], path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with _naming(path):
            yield from batches
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _unreadable(path, error) from error


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have errors of the system name the file: neither Arrow's nor those of a full disk do."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _unreadable(path: Path, error: Exception) -> DataInvalid:
    """Arrow's errors of a damaged file are for those who know the format, and have no number."""
    if isinstance(error, OSError) and error.errno:
        return DataInvalid(f"{path} cannot be read: {os.strerror(error.errno)}")
    return DataInvalid(f"{path} is not a Parquet file, or not a whole one")


def _parts(opened: Input, size: int, done: set[int]) -> Iterator[tuple[int, pa.Table]]:
    """The rows of the parts that are not done, part by part; a file without rows is one part."""

    def wanted(first: int, end: int) -> bool:
        return any(part not in done for part in range(first // size, -(-end // size)))

    pieces: list[pa.Table] = []
    part = 0
    for start, table in opened.batches(wanted):
        first, rest = start, table
        while True:
            if first // size != part:
                if pieces and part not in done:
                    yield part, pa.concat_tables(pieces)
                pieces, part = [], first // size
            piece = rest.slice(0, (part + 1) * size - first)
            pieces.append(piece)
            first, rest = first + len(piece), rest.slice(len(piece))
            if not len(rest):
                break
    if part not in done:
        yield part, pa.concat_tables(pieces)


def score_file(
    package: ModelPackage,
    source: Path,
    output: Path,
    options: Options,
    *,
    progress: Progress | None = None,
    rows_per_part: int = ROWS_PER_PART,
) -> Summary:
    """Score a file of applications.

    Args:
        package: what decides.
        source: applications, Parquet or CSV by its suffix.
        output: decisions, likewise; the errors go beside it to ``output.errors.jsonl``, and until
            it is complete the parts are in ``output.parts``.
        options: see `Options`.
        progress: told the rows done, and all of them where that is known.
        rows_per_part: rows of a part.

    Raises:
        DataInvalid: the input cannot be read, lacks a column, or changed while it was read. There
            are no parts of it then.
        OutputRefused: there is such an output or no folder for it, its parts were begun with
            another input, package or options, or another run is writing them.
        ExplanationFailed: see `Scorer.score`.
        OSError: a file, which it names, cannot be read or written.
    """
    began = time.monotonic()
    scorer = Scorer(package, options, text=_kind_of(source) == "csv")
    kind = _kind_of(output)
    opened = open_input(source, scorer, rows_per_part, kind)
    if not output.parent.is_dir():
        raise OutputRefused(f"there is no folder {output.parent} for the output")
    stat = source.stat()
    bound = {
        "format": _FORMAT,
        "program": __version__,
        "portfolio": package.portfolio,
        "package": package.digest,
        "options": {**asdict(options), "keep": list(options.keep)},
        "rows_per_part": rows_per_part,
        "output": kind,
        "input_bytes": stat.st_size,
        "input_sha256": _sha256(source),
    }
    with (
        _begun(output, bound) as folder,
        contextlib.closing(_Assembly(folder, kind)) as assembly,
    ):
        whole = _whole_parts(folder)
        done = set(whole)
        # A package that holds somebody's own pipeline is not made for threads.
        workers = 1 if package.spec.kind == "pipeline" else len(os.sched_getaffinity(0))
        pending: deque[tuple[int, Future[None]]] = deque()

        def take() -> None:
            part, future = pending.popleft()
            future.result()
            done.add(part)
            assembly.add(done)
            if progress is not None:
                progress(assembly.rows, opened.rows)

        with ThreadPoolExecutor(workers, "scoring") as pool:
            assembly.add(done)
            for part, table in _parts(opened, rows_per_part, done):
                future = pool.submit(_score_part, scorer, folder, part, table, rows_per_part)
                pending.append((part, future))
                if len(pending) > workers:
                    take()
            while pending:
                take()
        after = source.stat()
        if (after.st_size, after.st_mtime_ns) != (stat.st_size, stat.st_mtime_ns):
            raise DataInvalid(f"{source} changed while it was read: start again")
        written = assembly.finish(output)
        _clear(folder)
    return Summary(
        rows=assembly.rows,
        scored=assembly.rows - assembly.refused,
        refused=assembly.refused,
        decisions={name: assembly.decisions[name] for name in DECISIONS},
        bands={name: assembly.bands[name] for name in BAND_ORDER},
        rows_resumed=sum(whole.values()),
        seconds=round(time.monotonic() - began, 3),
        portfolio=package.portfolio,
        model_version=package.version,
        policy_version=package.policy_version,
        output=str(output),
        errors=str(written),
    )


@contextlib.contextmanager
def _begun(output: Path, bound: dict[str, Any]) -> Iterator[Path]:
    """The folder of an output's parts, begun or taken up again, and nobody else's meanwhile."""
    folder = Path(f"{output}.parts")
    manifest = folder / MANIFEST
    if output.exists() and not manifest.exists():
        raise OutputRefused(f"{output} exists: delete it, or name another output")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputRefused(f"another run is writing {folder}") from None
        # Where no part was finished there is nothing to go on with, and nothing to lose.
        begun = manifest.exists() and (output.exists() or any(folder.glob(_PARTS)))
        if begun:
            before = json.loads(manifest.read_bytes())
            other = [name for name, value in bound.items() if before.get(name) != value]
            if other:
                names = ", ".join(name.replace("_", " ") for name in other)
                msg = (
                    f"{folder} was begun with another {names}: finish it with the same, or delete "
                    "it to start again"
                )
                raise OutputRefused(msg)
        try:
            if not begun:
                for left in folder.glob(_PARTS):
                    left.unlink()
                with _whole_file(manifest) as writing:
                    writing.write_text(json.dumps(bound, indent=2) + "\n", encoding="utf-8")
            for left in folder.glob("*.writing"):
                left.unlink()
            yield folder
        except BaseException as error:
            # No output ever comes of bytes that cannot be read.
            if isinstance(error, DataInvalid) or not any(folder.glob(_PARTS)):
                _clear(folder)
            raise


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A path to write to; what is there becomes ``path``, durable, when the block ends well."""
    writing = path.with_name(f"{path.name}.writing")
    with _naming(path):
        yield writing
        with writing.open("rb") as file:
            os.fsync(file.fileno())
        writing.replace(path)


def _score_part(
    scorer: Scorer, folder: Path, part: int, table: pa.Table, rows_per_part: int
) -> None:
    answers, errors = scorer.score(table, part * rows_per_part)
    # The errors first: a part that is there is there with its errors.
    with _whole_file(_part_file(folder, part, "jsonl")) as writing:
        lines = [json.dumps(error.to_json(), ensure_ascii=False) + "\n" for error in errors]
        writing.write_text("".join(lines), encoding="utf-8")
    with (
        _whole_file(_part_file(folder, part, "arrow")) as writing,
        pa.ipc.new_file(str(writing), answers.schema) as file,
    ):
        file.write_table(answers)


def _part_file(folder: Path, part: int, suffix: str) -> Path:
    return folder / f"part-{part:08}.{suffix}"


def _whole_parts(folder: Path) -> dict[int, int]:
    """The parts that an earlier run finished, and their rows.

    A part that is damaged is removed, and so made again.
    """
    rows = {}
    for file in sorted(folder.glob(_PARTS)):
        part = int(file.stem.split("-")[1])
        try:
            with pa.memory_map(str(file)) as mapped:
                answers = pa.ipc.open_file(mapped).read_all()
                answers.validate(full=True)
                refused = answers.column("probability_of_default").null_count
            errors = _part_file(folder, part, "jsonl").read_text(encoding="utf-8").splitlines()
            if len({json.loads(line)["row"] for line in errors}) == refused:
                rows[part] = len(answers)
        except (pa.ArrowException, OSError, ValueError):
            pass
        if part not in rows:
            file.unlink()
    return rows


class _Assembly:
    """Parts put together in order, as far as they are there, while others are still scored."""

    def __init__(self, folder: Path, kind: Literal["csv", "parquet"]) -> None:
        self.rows = 0
        self.refused = 0
        self.decisions: Counter[str] = Counter()
        self.bands: Counter[str] = Counter()
        self._folder = folder
        self._kind = kind
        self._output = folder / f"output.{kind}.writing"
        self._errors = folder / "errors.jsonl.writing"
        self._errors.write_bytes(b"")
        self._next = 0
        self._writer: pa.parquet.ParquetWriter | pa.csv.CSVWriter | None = None

    def add(self, done: set[int]) -> None:
        """Add those of the parts that are next."""
        while self._next in done:
            with pa.memory_map(str(_part_file(self._folder, self._next, "arrow"))) as file:
                self._write(pa.ipc.open_file(file).read_all())
            with _naming(self._errors), self._errors.open("ab") as errors:
                errors.write(_part_file(self._folder, self._next, "jsonl").read_bytes())
            self._next += 1

    def _write(self, answers: pa.Table) -> None:
        self.rows += len(answers)
        self.refused += answers.column("probability_of_default").null_count
        for name, counter in (("decision", self.decisions), ("risk_band", self.bands)):
            for count in pc.value_counts(answers.column(name).drop_null()).to_pylist():
                counter[count["values"]] += count["counts"]
        if self._kind == "csv":
            answers = in_words(answers)
        with _naming(self._output):
            if self._writer is None:
                self._writer = _writer(self._output, answers.schema)
            self._writer.write_table(answers)

    def close(self) -> None:
        """Let go of an output that is not to be; after `finish`, nothing."""
        if self._writer is not None:
            with contextlib.suppress(OSError):
                self._writer.close()

    def finish(self, output: Path) -> Path:
        """Put output and errors in their places, the output last; returns that of the errors."""
        # An input without rows has one part as well, so there is a writer.
        if self._writer is not None:
            with _naming(self._output):
                self._writer.close()
            self._writer = None
        errors = Path(f"{output}{ERRORS_SUFFIX}")
        for written, place in ((self._errors, errors), (self._output, output)):
            with written.open("rb") as file:
                os.fsync(file.fileno())
            written.replace(place)
        folder = os.open(output.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return errors


def _writer(path: Path, schema: pa.Schema) -> pa.parquet.ParquetWriter | pa.csv.CSVWriter:
    if path.suffixes[-2] == ".csv":
        return pa.csv.CSVWriter(path, schema)
    # PDs repeat too seldom for a dictionary, and row numbers never do.
    coded = [f.name for f in schema if f.name not in ("row", "probability_of_default")]
    return pa.parquet.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[*coded, "rules.list.element", "reasons.list.element"],
        column_encoding={"row": "DELTA_BINARY_PACKED"},
    )


def in_words(answers: pa.Table) -> pa.Table:
    """Lists as words with spaces between them, for CSV."""
    columns = {
        name: pc.binary_join(column, " ") if pa.types.is_list(column.type) else _plain(column)
        for name, column in zip(answers.column_names, answers.columns, strict=True)
    }
    return pa.table(columns)


def _clear(folder: Path) -> None:
    """Remove the parts, the manifest after them: killed here, a run can be taken up again."""
    for file in folder.iterdir():
        if file.name not in (MANIFEST, "lock"):
            file.unlink()
    for name in (MANIFEST, "lock"):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
