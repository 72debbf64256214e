"""Whether a labelled file may be trained on: checked before anything is learned of it.

`validate` holds a file against the portfolio's schema, the limits of its ``validation.yaml`` and
the population of the package that decides. What it finds is a `Finding` with the rows and why; a
limit that is passed is a warning, or refuses the file. Values of the file are in no finding.

What a column may hold is declared to pandera, which names the rows that hold something else.
"""

from __future__ import annotations

import csv
import hashlib
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pydantic import Field, model_validator
from sklearn.metrics import roc_auc_score

from credit_risk import documents
from credit_risk.documents import Document
from credit_risk.drift import Reference
from credit_risk.errors import DataInvalid, PortfolioInvalid
from credit_risk.model import probability
from credit_risk.training import preparation

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.schema import FieldSpec, Schema
    from credit_risk.training.preparation import Prepared
    from credit_risk.training.settings import Training

    Floats = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]

FILE = "validation.yaml"

FIRST_ROWS = 10
"""So many rows are named of each finding, and the others counted."""

FEW_VALUES = 50
"""A number of so few values may also tell the outcome by their names, as a category does."""

_STANDARD_ERRORS = 3.0
_ITSELF = 0.99999
_SEPARATED = ": are the values separated by commas?"

Check: TypeAlias = Literal[
    "file",
    "columns",
    "type",
    "range",
    "missing",
    "category",
    "label",
    "size",
    "duplicate",
    "contradiction",
    "ratio",
    "constant",
    "leakage",
    "outcome",
    "default-rate",
    "drift",
]
CHECKS: tuple[Check, ...] = get_args(Check)
RELATIVE: frozenset[Check] = frozenset({"outcome", "default-rate", "drift"})
"""Checks against the population of the package that decides."""
Severity = Literal["refused", "warning"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class ShareLimit(Document):
    """Shares above which there is a warning, and above which the file is refused."""

    warn: Share | None = None
    refuse: Share | None = None

    @model_validator(mode="after")
    def _is_in_order(self) -> ShareLimit:
        if self.warn is not None and self.refuse is not None and self.warn > self.refuse:
            msg = "warn is above refuse"
            raise ValueError(msg)
        return self


class Limit(ShareLimit):
    """The same of a measure that is no share."""

    warn: Positive | None = None
    refuse: Positive | None = None


class Limits(Document):
    """The limits of each measure; a measure with neither bound is not looked at.

    Shares are of rows. ``missing_rise`` is above the reference's share and beyond chance;
    ``default_rate`` a factor between the reference's and the file's, either way; ``auc`` that of
    one field by itself; ``gini_loss`` the share of its Gini coefficient that the reference loses.
    """

    unreadable: ShareLimit = ShareLimit(refuse=0.0)
    out_of_range: ShareLimit = ShareLimit(warn=0.0, refuse=0.001)
    missing: ShareLimit = ShareLimit(refuse=0.0)
    missing_rise: ShareLimit = ShareLimit(warn=0.02, refuse=0.05)
    unseen: ShareLimit = ShareLimit(refuse=0.0)
    duplicates: ShareLimit = ShareLimit(warn=0.001, refuse=0.02)
    contradictions: ShareLimit = ShareLimit(warn=0.001, refuse=0.01)
    ratio: ShareLimit = ShareLimit(warn=0.01, refuse=0.05)
    auc: Limit = Limit(warn=0.85, refuse=0.95)
    gini_loss: ShareLimit = ShareLimit(warn=0.25, refuse=0.5)
    default_rate: Limit = Limit(warn=1.25, refuse=1.5)
    field_psi: Limit = Limit(warn=0.1, refuse=0.25)
    score_psi: Limit = Limit(warn=0.1, refuse=0.25)


class Column(Document):
    """A column of the raw table that the schema does not describe.

    Numbers have a range, categories a list; integers are whole numbers.
    """

    name: str
    type: Literal["integer", "number", "category"]
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] = ()
    nullable: bool = False


class ValidationPolicy(Document):
    """``validation.yaml``: what a file has to be like to be trained on; it is in no package.

    ``columns`` are those of the raw table that a preparation function reads. ``identifiers`` name
    a row and nothing else: no two rows have the same, and rows are compared without them.
    """

    portfolio: str
    version: str
    least_rows: Annotated[int, Field(ge=1)] = 1_000
    least_of_each: Annotated[int, Field(ge=1)] = 100
    columns: tuple[Column, ...] = ()
    identifiers: tuple[str, ...] = ()
    limits: Limits = Limits()


class Finding(Document):
    """One thing that is not as it should be.

    ``rows`` are how many, ``first`` the numbers of the first of them: 1 is the row after the
    names. Both are empty where it is not about single rows. ``measured`` is a share of rows or
    what the limit is of.
    """

    check: Check
    severity: Severity
    column: str | None
    message: str
    rows: int = 0
    first: tuple[int, ...] = ()
    measured: float | None = None
    limit: float | None = None


class Report(Document):
    """A file's findings, the refusals first.

    ``reference`` is the version of the package it was compared with. ``checked`` are the checks
    that were made: a file that cannot be read ends them.
    """

    portfolio: str
    sha256: str
    verdict: Literal["ACCEPTED", "REFUSED"]
    reference: str | None
    rows: int
    checked: tuple[Check, ...]
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether the file may not be trained on."""
        return self.verdict == "REFUSED"


def read(portfolio: Portfolio) -> ValidationPolicy:
    """The portfolio's ``validation.yaml``; the defaults where it has none.

    Raises:
        PortfolioInvalid: the file is wrong, or another portfolio's.
    """
    path = portfolio.path / FILE
    name = portfolio.schema.portfolio
    if not path.exists():
        return ValidationPolicy(portfolio=name, version="default")
    policy = documents.read(ValidationPolicy, path)
    if policy.portfolio != name:
        msg = f"{path}: it says it belongs to portfolio {policy.portfolio!r}"
        raise PortfolioInvalid(msg)
    return policy


def validate(
    path: Path,
    schema: Schema,
    training: Training,
    policy: ValidationPolicy,
    reference: ModelPackage | None = None,
    *,
    only_warn: Collection[Check] = (),
) -> Report:
    """Check a labelled raw file.

    Args:
        path: CSV or Parquet.
        schema: the portfolio's.
        training: names the target and the preparation function.
        policy: the limits.
        reference: the package that decides; without it nothing is compared with its population.
        only_warn: checks that refuse nothing here.

    Raises:
        PortfolioInvalid: the preparation function cannot be imported, or loses rows.
        OSError: the file cannot be opened.
    """
    checks = _Checks(path, schema, training, policy, reference)
    checks.run()
    findings = [
        f.model_copy(update={"severity": "warning"}) if f.check in only_warn else f
        for f in checks.found
    ]
    findings.sort(key=lambda f: (f.severity != "refused", CHECKS.index(f.check)))
    return Report(
        portfolio=policy.portfolio,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        verdict="REFUSED" if any(f.severity == "refused" for f in findings) else "ACCEPTED",
        reference=None if reference is None else reference.version,
        rows=checks.rows,
        checked=tuple(check for check in CHECKS if check in checks.checked),
        findings=tuple(findings),
    )


class _Checks:
    """The checks of one file, one after another as far as they can be made."""

    def __init__(
        self,
        path: Path,
        schema: Schema,
        training: Training,
        policy: ValidationPolicy,
        reference: ModelPackage | None,
    ) -> None:
        self.path, self.schema, self.training = path, schema, training
        self.policy, self.limits, self.reference = policy, policy.limits, reference
        self.found: list[Finding] = []
        self.checked: set[Check] = set()
        self.rows = 0

    def run(self) -> None:
        """Make them; each part needs what the one before found sound."""
        self.checked |= {"file"}
        known = {self.training.target, *self.schema.names, *(c.name for c in self.policy.columns)}
        self.found += _lines(self.path, known)
        if self.found:
            return
        try:
            raw = preparation.table(self.path, self.schema, self.training)
        except DataInvalid as error:
            self._refuse("file", str(error).removeprefix(str(self.path)).strip())
            return
        self.rows = len(raw)
        if not self._table(raw):
            return
        self._whole_rows(raw)
        try:
            prepared = preparation.read(self.path, self.schema, self.training, unique=False)
        except DataInvalid:
            # Why no row is left was said of each column.
            return
        self._fields(prepared)
        if self.reference is not None:
            self._population(self.reference)

    def _table(self, raw: pd.DataFrame) -> bool:
        """Columns, types, ranges and labels; whether the fields can be made of them."""
        self.checked |= {"columns", "type", "range", "missing", "category", "label", "size"}
        target, column = self.training.target, self.training.hold_out.column
        needed = [target, *([] if column is None else [column]), *self.policy.identifiers]
        described: list[Column | FieldSpec] = [*self.policy.columns]
        if self.training.preparation is None:
            described += self.schema.fields
        if not self._columns(raw, [*needed, *(d.name for d in described)]):
            return False
        self._declared(raw, described)
        if column is not None:
            self._times(raw[column], column)
        sound = self._labels(raw[target])
        if sound and self.training.preparation is not None:
            fields = preparation.fields(raw, self.path, self.training)
            gone = [name for name in self.schema.names if name not in fields.columns]
            for name in gone:
                self._refuse("columns", "the preparation function does not make the field", name)
            if gone:
                return False
            self._declared(fields, self.schema.fields)
        return sound

    def _declared(self, table: pd.DataFrame, described: Sequence[Column | FieldSpec]) -> None:
        """Hold a table against what is declared of its columns; see `declared`."""
        for name, told, at in _failures(table, described):
            check, limit, text = _DECLARED[told]
            self._rows(check, getattr(self.limits, limit), at, text, name)
        for spec in described:
            column = table[spec.name]
            if spec.type == "category":
                alike = _alike(column, spec.categories)
                if alike.any():
                    text = "differ from a category by case or spaces only"
                    self._rows("category", ShareLimit(warn=0.0), alike, text, spec.name)
            elif (commas := _commas(column)).any():
                text = "look like a number with a comma: a decimal or a thousands' separator"
                self._rows("type", ShareLimit(warn=0.0), commas, text, spec.name)

    def _columns(self, raw: pd.DataFrame, wanted: Sequence[str]) -> bool:
        """Whether the columns wanted are there."""
        absent = [name for name in wanted if name not in raw.columns]
        if absent and len(raw.columns) == 1:
            self._refuse("columns", f"there is one column only{_SEPARATED}")
            return False
        folded = {str(name).strip().casefold(): i for i, name in enumerate(raw.columns, 1)}
        for name in absent:
            alike = folded.get(name.casefold())
            but = "" if alike is None else f"; column {alike} is called so but for case or spaces"
            self._refuse("columns", f"the column is missing{but}", name)
        for i, name in enumerate(raw.columns, 1):
            if not str(name).strip():
                self._refuse("columns", f"column {i} has no name")
        return not absent

    def _times(self, column: pd.Series[Any], name: str) -> None:
        """By what rows are put in order: as text, dates sort as they are written."""
        missing = column.isna().to_numpy()
        self._rows("missing", self.limits.missing, missing, "hold nothing", name)
        if pd.api.types.is_numeric_dtype(column):
            return
        times = pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True)
        unread = times.isna().to_numpy() & ~missing
        self._rows("type", ShareLimit(refuse=0.0), unread, "hold no time as 2026-03-31 is", name)
        # Of whatever zone it is.
        later = (times > pd.Timestamp.now("UTC") + pd.Timedelta(days=1)).to_numpy()
        self._rows("range", self.limits.out_of_range, later, "lie in the future", name)

    def _labels(self, column: pd.Series[Any]) -> bool:
        name = self.training.target
        labels = pd.to_numeric(column, errors="coerce")
        missing = column.isna().to_numpy()
        wrong = ~labels.isin([0, 1]).to_numpy() & ~missing
        never = ShareLimit(refuse=0.0)
        self._rows("label", never, missing, "have no outcome", name)
        self._rows("label", never, wrong, "have an outcome that is neither 0 nor 1", name)
        defaults, others = int((labels == 1).sum()), int((labels == 0).sum())
        if self.rows < self.policy.least_rows:
            self._measure(
                "size", self.rows, self.policy.least_rows, f"only {self.rows:,} {_noun(self.rows)}"
            )
        for number, words in ((defaults, "defaulted"), (others, "did not default")):
            if number < self.policy.least_of_each:
                least = self.policy.least_of_each
                self._measure("size", number, least, f"only {number:,} {words}", name)
        return not (missing.any() or wrong.any()) and min(defaults, others) > 0

    def _whole_rows(self, raw: pd.DataFrame) -> None:
        """Rows that are there twice, with the same outcome or with another."""
        self.checked |= {"duplicate", "contradiction"}
        names = list(self.policy.identifiers)
        for name in names:
            again = raw[name].duplicated(keep="first").to_numpy()
            text = "have an identifier that an earlier row has"
            self._rows("duplicate", ShareLimit(refuse=0.0), again, text, name)
        rows = raw.drop(columns=names)
        again = rows.duplicated(keep="first").to_numpy()
        self._rows("duplicate", self.limits.duplicates, again, "are exactly as an earlier row")
        inputs = rows.drop(columns=[self.training.target])
        several = inputs.duplicated(keep=False)
        hashes = pd.util.hash_pandas_object(inputs, index=False)
        outcomes = raw[self.training.target].groupby(hashes.to_numpy()).transform("nunique")
        against = (several & (outcomes > 1)).to_numpy()
        text = "have the same values as another row, and the other outcome"
        self._rows("contradiction", self.limits.contradictions, against, text)

    def _fields(self, prepared: Prepared) -> None:
        """Fields that say nothing, too much, or other than those they follow from."""
        self.checked |= {"constant", "leakage", "ratio"}
        for i, spec in enumerate(self.schema.fields):
            values = prepared.rows[:, i]
            present = values[~np.isnan(values)]
            if len(np.unique(present)) <= 1:
                self._refuse("constant", "every row has the same value, or none", spec.name)
                continue
            found, how = _tells(values, prepared.labels, is_category=spec.is_category)
            text = f"{how} the outcome nearly by itself (AUC {found:.3f})"
            if found >= _ITSELF:
                text = f"{how} the outcome completely (AUC {found:.3f}): is it a copy of it?"
            self._measured("leakage", self.limits.auc, found, text, spec.name)
            if spec.follows is not None:
                part = {n: prepared.rows[:, self.schema.index[n]] for n in self.schema.names}
                ratio = part[spec.follows.numerator] / part[spec.follows.denominator]
                unit = 10.0**-spec.follows.decimals
                apart = np.zeros(self.rows, dtype=bool)
                apart[prepared.kept] = np.abs(ratio - values) > unit
                text = f"are not {spec.follows.numerator} / {spec.follows.denominator}"
                self._rows("ratio", self.limits.ratio, apart, text, spec.name)

    def _population(self, reference: ModelPackage) -> None:
        """The file's applicants and outcomes beside those the package knows."""
        self.checked |= RELATIVE
        try:
            prepared = preparation.read(self.path, reference.schema, self.training, unique=False)
        except DataInvalid as error:
            self._refuse("drift", f"package {reference.version} cannot score these rows: {error}")
            return
        pds = probability(reference.model.log_odds(prepared.rows))
        known = Reference.of(reference)
        drift = known.compare(known.count(prepared.rows, pds))
        for one in [*drift.fields, *([] if drift.score is None else [drift.score])]:
            limit = self.limits.score_psi if one is drift.score else self.limits.field_psi
            if one.critical is not None and one.psi > one.critical:
                most = "" if one.leading is None else f", most in: {one.leading}"
                text = f"drifted from the rows of package {reference.version} (PSI {one.psi:.3f}"
                self._measured("drift", limit, one.psi, f"{text}{most})", one.field)
            rise, was = one.missing.share - one.missing.reference, one.missing.reference
            by_chance = (was * (1.0 - was) / max(one.rows, 1)) ** 0.5
            if rise > _STANDARD_ERRORS * by_chance:
                text = f"is missing in {one.missing.share:.1%} of rows, and was in {was:.1%}"
                self._measured("drift", self.limits.missing_rise, rise, text, one.field)
        self._foreseen(reference, prepared.labels, pds)
        then = reference.metrics.get("hold_out", {}).get("default_rate")
        now = float(prepared.labels.mean())
        if then and now > 0.0:
            by_chance = (then * (1.0 - then) / len(prepared.labels)) ** 0.5
            if abs(now - then) > _STANDARD_ERRORS * by_chance:
                text = f"{now:.2%} of rows default, and {then:.2%} did in development"
                factor = max(now / then, then / now)
                self._measured(
                    "default-rate", self.limits.default_rate, factor, text, self.training.target
                )

    def _foreseen(
        self, reference: ModelPackage, labels: npt.NDArray[np.int64], pds: Floats
    ) -> None:
        """Whether outcomes are at all what the package foresees of these applicants.

        It loses most of its Gini coefficient where they are those of other rows. Chance is that
        of an AUC of one half, (n + 1) / 12 n1 n0 (Mann and Whitney 1947).
        """
        then = reference.metrics.get("hold_out", {}).get("roc_auc", 0.5)
        defaults, others = (labels == 1).sum(), (labels == 0).sum()
        if then <= 0.5 or not (defaults and others):  # noqa: PLR2004 - tells nothing
            return
        now = float(roc_auc_score(labels, pds))
        by_chance = ((len(labels) + 1) / (12.0 * defaults * others)) ** 0.5
        if then - now > _STANDARD_ERRORS * by_chance:
            text = (
                f"package {reference.version} foresees the outcomes with an AUC of {now:.3f}, and "
                f"did with {then:.3f} in development: are they those of other rows? It lost "
                f"{(then - now) / (then - 0.5):.0%} of its Gini coefficient"
            )
            lost = (then - now) / (then - 0.5)
            self._measured("outcome", self.limits.gini_loss, lost, text, self.training.target)

    def _refuse(self, check: Check, message: str, column: str | None = None) -> None:
        self.found.append(Finding(check=check, severity="refused", column=column, message=message))

    def _measure(
        self, check: Check, number: int, least: int, text: str, column: str | None = None
    ) -> None:
        self.found.append(
            Finding(
                check=check,
                severity="refused",
                column=column,
                message=f"{text}, and {least:,} are needed",
                measured=number,
                limit=least,
            )
        )

    def _rows(
        self, check: Check, limit: ShareLimit, which: Mask, text: str, column: str | None = None
    ) -> None:
        number = int(which.sum())
        if number == 0:
            return
        share = number / self.rows
        severity, passed = _passed(limit, share)
        if severity is None:
            return
        first = tuple((np.flatnonzero(which)[:FIRST_ROWS] + 1).tolist())
        more = f" and {number - len(first):,} more" if number > len(first) else ""
        at = f"{_noun(number)} {', '.join(map(str, first))}{more}"
        most = f"; at most {passed:.2%} may" if passed else ""
        done = _agreeing(text, number)
        self.found.append(
            Finding(
                check=check,
                severity=severity,
                column=column,
                message=f"{number:,} of {self.rows:,} rows ({share:.2%}) {done}{most}: {at}",
                rows=number,
                first=first,
                measured=share,
                limit=passed,
            )
        )

    def _measured(
        self, check: Check, limit: ShareLimit, value: float, text: str, column: str | None
    ) -> None:
        severity, passed = _passed(limit, value)
        if severity is not None:
            self.found.append(
                Finding(
                    check=check,
                    severity=severity,
                    column=column,
                    message=f"{text}; the limit is {passed:g}",
                    measured=value,
                    limit=passed,
                )
            )


def _passed(limit: ShareLimit, value: float) -> tuple[Severity | None, float | None]:
    """The bound that a value is above, and what follows."""
    if limit.refuse is not None and value > limit.refuse:
        return "refused", limit.refuse
    if limit.warn is not None and value > limit.warn:
        return "warning", limit.warn
    return None, None


def _lines(path: Path, known: Collection[str]) -> Iterator[Finding]:
    """What is wrong with the lines of a text file, before anybody makes a table of them.

    ``known`` are names of columns; another one may be a value, in a file without names.
    """
    if path.suffix.lower() == ".parquet":
        return
    undecodable = []
    with path.open("rb") as file:
        for number, line in enumerate(file):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                undecodable.append(number)
    if undecodable[:1] == [0]:
        yield _of_file("is not text in UTF-8 from its first line on: another encoding, or packed?")
        return
    if undecodable:
        yield _at_rows("are not text in UTF-8: was the file put together of others?", undecodable)
        return
    with path.open(encoding="utf-8-sig", newline="") as text:
        try:
            lines = iter(csv.reader(text, strict=True))
            names = next(lines, [])
            places = {name: [i for i, n in enumerate(names, 1) if n == name] for name in names}
            other = [i for i, row in enumerate(lines, 1) if row and len(row) != len(names)]
        except csv.Error as error:
            yield _of_file(f"is not CSV: {error}")
            return
    for name, at in places.items():
        if len(at) > 1:
            yield Finding(
                check="columns",
                severity="refused",
                column=name if name in known else None,
                message=f"the column is there twice: columns {', '.join(map(str, at))}",
            )
    if other:
        hint = _SEPARATED if len(names) == 1 else ""
        yield _at_rows(f"do not have as many values as there are names, {len(names)}{hint}", other)


def _of_file(message: str) -> Finding:
    return Finding(check="file", severity="refused", column=None, message=message)


def _at_rows(text: str, rows: Sequence[int]) -> Finding:
    first = tuple(islice(rows, FIRST_ROWS))
    number = len(rows)
    more = f" and {number - len(first):,} more" if number > len(first) else ""
    noun = _noun(number)
    message = (
        f"{number:,} {noun} {_agreeing(text, number)}: {noun} {', '.join(map(str, first))}{more}"
    )
    return Finding(
        check="file", severity="refused", column=None, message=message, rows=number, first=first
    )


def _noun(number: int) -> str:
    return "row" if number == 1 else "rows"


def _agreeing(text: str, number: int) -> str:
    """What rows do, as a sentence's end that begins with its verb; of one row, what it does."""
    verb, _, rest = text.partition(" ")
    return f"{_OF_ONE[verb]} {rest}" if number == 1 else text


_OF_ONE = {
    "are": "is",
    "differ": "differs",
    "do": "does",
    "have": "has",
    "hold": "holds",
    "lie": "lies",
    "look": "looks",
}
"""Verbs of findings, of one row."""


_DECLARED: dict[str, tuple[Check, str, str]] = {
    "readable": ("type", "unreadable", "hold no number"),
    "whole": ("type", "out_of_range", "hold no whole number"),
    "range": ("range", "out_of_range", "are outside the range"),
    "listed": ("category", "unseen", "hold a category that is not in the list"),
    "not_nullable": ("missing", "missing", "hold nothing"),
}
"""Of each declaration: the check it belongs to, its limit, and what rows that fail it do."""


def declared(described: Sequence[Column | FieldSpec]) -> pa.DataFrameSchema:
    """What columns may hold, for pandera."""
    return pa.DataFrameSchema(
        {
            spec.name: pa.Column(
                checks=_listed(spec) if spec.type == "category" else _number(spec),
                nullable=spec.nullable,
            )
            for spec in described
        }
    )


def _listed(spec: Column | FieldSpec) -> list[pa.Check]:
    return [pa.Check.isin(list(spec.categories), error="listed")]


def _number(spec: Column | FieldSpec) -> list[pa.Check]:
    low = -np.inf if spec.minimum is None else spec.minimum
    high = np.inf if spec.maximum is None else spec.maximum

    def numbers(column: pd.Series[Any]) -> pd.Series[Any]:
        return pd.to_numeric(column, errors="coerce")

    # What is no number is outside no range.
    checks = [
        pa.Check(lambda c: numbers(c).notna(), error="readable"),
        pa.Check(lambda c: numbers(c).between(low, high) | numbers(c).isna(), error="range"),
    ]
    if spec.type == "integer":
        checks.append(pa.Check(lambda c: ~(numbers(c) % 1 > 0), error="whole"))
    return checks


def _failures(
    table: pd.DataFrame, described: Sequence[Column | FieldSpec]
) -> Iterator[tuple[str, str, Mask]]:
    """Each column and declaration that rows fail, and which rows."""
    try:
        declared(described).validate(table.reset_index(drop=True), lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        for (name, check), found in cases.groupby(["column", "check"], sort=False):
            at = np.zeros(len(table), dtype=bool)
            at[found["index"].to_numpy(dtype=np.int64)] = True
            yield str(name), str(check), at


def _alike(column: pd.Series[Any], categories: Sequence[str]) -> Mask:
    """Which values would be a category if case and spaces did not count."""
    text = column.astype("string")
    folded = text.str.strip().str.casefold().isin({c.strip().casefold() for c in categories})
    return (folded & ~text.isin(list(categories))).to_numpy(dtype=bool, na_value=False)


def _commas(column: pd.Series[Any]) -> Mask:
    """Which values are text that only a comma keeps from being a number."""
    if pd.api.types.is_numeric_dtype(column):
        return np.zeros(len(column), dtype=bool)
    text = column.astype("string")
    without = pd.to_numeric(text.str.replace(",", "", regex=False), errors="coerce").notna()
    return (without & text.str.contains(",", regex=False)).to_numpy(dtype=bool, na_value=False)


def _tells(
    values: Floats, labels: npt.NDArray[np.int64], *, is_category: bool
) -> tuple[float, str]:
    """How well a field by itself ranks outcomes, as AUC of 0.5 and more, and by what of it."""
    absent = np.isnan(values)
    ways = []
    if absent.any():
        ways.append((_auc(labels, absent.astype(np.float64)), "whether it is missing tells"))
    kept, of = values[~absent], labels[~absent]
    if len(np.unique(of)) > 1:
        if not is_category:
            ways.append((_auc(of, kept), "it tells"))
        if is_category or len(np.unique(kept)) <= FEW_VALUES:
            rates = pd.Series(of).groupby(kept).transform("mean").to_numpy(dtype=np.float64)
            ways.append((_auc(of, rates), "it tells"))
    return max(ways, default=(0.5, "it tells"))


def _auc(labels: npt.NDArray[np.int64], values: Floats) -> float:
    found = float(roc_auc_score(labels, values))
    return max(found, 1.0 - found)
