"""The policy: from a probability of default and an application to a band and a decision.

The model gives risk; the policy decides. A policy is a versioned data file: bands by PD, each with
its decision, and declarative rules. A knock-out rule declines, a referral rule asks for a person;
a rule can make the band's decision stricter, never milder.

A rule's conditions compare fields, or quantities computed from them, with values::

    when:
      - {field: person_emp_length, op: missing}
    when:
      - {quantity: {difference: [person_age, cb_person_cred_hist_length]}, op: lt, value: 16}
    when:
      - quantity: {distance: [loan_percent_income, {ratio: [loan_amnt, person_income]}]}
        op: gt
        value: 0.0051

Quantities are for fields that cannot all be true at once, and a tolerance is the value compared
with. A quantity is missing where one of its fields is, and a comparison with a missing value is
false: that a field is missing is a condition of its own. Nothing can be divided by zero, because a
ratio whose denominator could be zero within the ranges of the schema is refused on load.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from credit_risk.documents import Document
from credit_risk.errors import PortfolioInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from credit_risk.schema import FieldSpec, Schema

    Floats = npt.NDArray[np.float64]
    Mask = npt.NDArray[np.bool_]
    Reader = Callable[[Mapping[str, Any]], Any]
    Test = Callable[[Any], bool]

DecisionName = Literal["APPROVE", "REVIEW", "DECLINE"]
BandName = Literal["LOW", "MEDIUM", "HIGH", "VERY_HIGH"]
BAND_ORDER: tuple[BandName, ...] = ("LOW", "MEDIUM", "HIGH", "VERY_HIGH")

DECISIONS: tuple[DecisionName, ...] = ("APPROVE", "REVIEW", "DECLINE")
SEVERITY: dict[DecisionName, int] = {name: place for place, name in enumerate(DECISIONS)}
_RULE_DECISION: dict[str, DecisionName] = {"knock-out": "DECLINE", "referral": "REVIEW"}

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Band(Document):
    """PDs from ``lower`` (inclusive) to ``upper`` (exclusive; the last band includes 1)."""

    name: BandName
    lower: Probability
    upper: Probability
    decision: DecisionName


class Quantity(Document):
    """A number computed from two others, each a numeric field or a quantity again.

    ``ratio`` is the first over the second, ``difference`` the first less the second, and
    ``distance`` their difference without its sign.
    """

    ratio: tuple[str | Quantity, str | Quantity] | None = None
    difference: tuple[str | Quantity, str | Quantity] | None = None
    distance: tuple[str | Quantity, str | Quantity] | None = None

    @model_validator(mode="after")
    def _is_one_of_the_three(self) -> Quantity:
        if sum(getattr(self, name) is not None for name in _OPERATIONS) != 1:
            msg = "a quantity is a ratio, a difference or a distance"
            raise ValueError(msg)
        return self

    @property
    def operation(self) -> str:
        """Which of the three it is."""
        return next(name for name in _OPERATIONS if getattr(self, name) is not None)

    @property
    def operands(self) -> tuple[str | Quantity, str | Quantity]:
        """The two numbers it is computed from."""
        both: tuple[str | Quantity, str | Quantity] = getattr(self, self.operation)
        return both

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it is computed from, in order."""
        named = ((o,) if isinstance(o, str) else o.fields for o in self.operands)
        return tuple(name for names in named for name in names)

    def of(self, number: Callable[[str], Any]) -> Any:  # noqa: ANN401 - a number or a column
        """Its value, NaN where missing; ``number`` gives a field's, alone or as a column."""
        first, second = (number(o) if isinstance(o, str) else o.of(number) for o in self.operands)
        return _OPERATIONS[self.operation](first, second)

    def __str__(self) -> str:
        first, second = self.operands
        return f"{self.operation} of {first} and {second}"


class Condition(Document):
    """One comparison, of a field or a quantity with a value.

    A comparison with a missing value is false; ``missing`` is true for it.
    """

    field: str | None = None
    quantity: Quantity | None = None
    op: Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not-in", "missing"]
    value: float | str | tuple[float | str, ...] | None = None

    @model_validator(mode="after")
    def _compares_one_thing(self) -> Condition:
        if (self.field is None) == (self.quantity is None):
            msg = "a condition compares either a field or a quantity"
            raise ValueError(msg)
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it looks at."""
        return self.quantity.fields if self.quantity else (str(self.field),)

    def __str__(self) -> str:
        return str(self.quantity) if self.quantity else f"field {self.field}"


class Rule(Document):
    """All conditions of ``when`` together call for the rule's decision, for its ``reason``."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
    kind: Literal["knock-out", "referral"]
    when: Annotated[tuple[Condition, ...], Field(min_length=1)]
    reason: str

    @property
    def decision(self) -> DecisionName:
        """What the rule calls for."""
        return _RULE_DECISION[self.kind]


class ReviewReason(Document):
    """A reason that a reviewer may give for ``decision``, in approved wording."""

    code: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    text: Annotated[str, Field(min_length=3, max_length=200)]
    decision: Literal["APPROVE", "DECLINE"]


class ReviewPolicy(Document):
    """How people decide; a policy without a section ``review`` has these defaults.

    ``second_person`` says which of their decisions take effect only once a second, different
    person agrees: those that override the server's (the default), every one, or none. A claim
    keeps others off a case for ``claim_minutes``. ``reasons`` are those a reviewer may give
    besides the portfolio's own, which are approved for a decline.
    """

    second_person: Literal["overrides", "always", "never"] = "overrides"
    claim_minutes: Annotated[int, Field(ge=1, le=1_440)] = 30
    reasons: tuple[ReviewReason, ...] = (
        ReviewReason(
            code="INFORMATION_VERIFIED",
            text="Information that was missing or in doubt was verified",
            decision="APPROVE",
        ),
        ReviewReason(
            code="INFORMATION_CORRECTED",
            text="Information in the application was wrong and was corrected",
            decision="APPROVE",
        ),
        ReviewReason(
            code="COMPENSATING_FACTORS",
            text="Verified strengths outside the model outweigh its score",
            decision="APPROVE",
        ),
    )

    @model_validator(mode="after")
    def _codes_are_unique(self) -> ReviewPolicy:
        if len({(r.code, r.decision) for r in self.reasons}) != len(self.reasons):
            msg = "reasons: a code is given twice for the same decision"
            raise ValueError(msg)
        return self


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the policy made of one application.

    ``scored`` is the band's own decision, before rules; ``rules`` are the rules that made the
    decision what it is: those that call for it, where the score alone or with them did.
    """

    band: BandName
    decision: DecisionName
    prediction: int
    scored: DecisionName
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the policy made of many applications; each array holds one entry or row for each.

    ``bands`` are places in `BAND_ORDER`, ``decisions`` and ``scored`` are severities (places in
    `DECISIONS`), ``rules`` is of shape (n, rules) and true where `Outcome.rules` names the rule.
    """

    policy: Policy
    bands: npt.NDArray[np.intp]
    decisions: npt.NDArray[np.int8]
    predictions: npt.NDArray[np.int8]
    scored: npt.NDArray[np.int8]
    rules: npt.NDArray[np.bool_]

    def __getitem__(self, row: int) -> Outcome:
        fired = self.rules[row].tolist()
        return Outcome(
            band=BAND_ORDER[self.bands[row]],
            decision=DECISIONS[self.decisions[row]],
            prediction=int(self.predictions[row]),
            scored=DECISIONS[self.scored[row]],
            rules=tuple(rule for rule, on in zip(self.policy.rules, fired, strict=True) if on),
        )

    def each(self) -> list[Outcome]:
        """All of them one by one; those that are alike are the same object."""
        columns = (self.bands, self.decisions, self.predictions, self.scored, self.rules)
        keys = list(map(tuple, np.column_stack(columns).tolist()))
        first = dict(zip(reversed(keys), reversed(range(len(keys))), strict=True))
        made = {key: self[row] for key, row in first.items()}
        return [made[key] for key in keys]


class Policy(Document):
    """A portfolio's decision policy."""

    portfolio: str
    version: str
    cut_off: Probability
    bands: Annotated[tuple[Band, ...], Field(min_length=len(BAND_ORDER), max_length=4)]
    rules: tuple[Rule, ...] = ()
    review: ReviewPolicy = ReviewPolicy()

    @model_validator(mode="after")
    def _bands_tile_the_probabilities(self) -> Policy:
        if tuple(b.name for b in self.bands) != BAND_ORDER:
            msg = f"bands: give {', '.join(BAND_ORDER)}, once each and in that order"
            raise ValueError(msg)
        edge = 0.0
        previous = self.bands[0]
        for band in self.bands:
            if band.lower != edge:
                kind = "overlaps the band before it" if band.lower < edge else "leaves a gap"
                msg = f"bands: {band.name} starts at {band.lower}, expected {edge}: it {kind}"
                raise ValueError(msg)
            if band.upper <= band.lower:
                msg = f"bands: {band.name} is empty ({band.lower} to {band.upper})"
                raise ValueError(msg)
            if SEVERITY[band.decision] < SEVERITY[previous.decision]:
                msg = f"bands: {band.name} decides {band.decision}, milder than {previous.name}"
                raise ValueError(msg)
            edge = band.upper
            previous = band
        if edge != 1.0:
            msg = f"bands: the last band ends at {edge}, not at 1"
            raise ValueError(msg)
        if len({rule.name for rule in self.rules}) != len(self.rules):
            msg = "rules: names are not unique"
            raise ValueError(msg)
        return self

    def check(self, schema: Schema) -> None:
        """Check every rule against the schema.

        Raises:
            PortfolioInvalid: a rule names an unknown field, compares a field or a quantity with a
                value that it can never hold or by an operator that has no meaning for it, or
                divides by what may be zero.
        """
        by_name = {f.name: f for f in schema.fields}
        for rule in self.rules:
            for condition in rule.when:
                fault = _fault(condition, by_name)
                if fault is not None:
                    msg = f"policy rule {rule.name}, {condition}: {fault}"
                    raise PortfolioInvalid(msg)

    def band_of(self, probability: float) -> Band:
        """The band a PD falls into; ``probability`` must lie in [0, 1]."""
        return self.bands[bisect_right(self._edges, probability)]

    def decide(self, probability: float, application: Mapping[str, Any]) -> Outcome:
        """Band, decision and the rules behind it.

        Args:
            probability: PD in [0, 1].
            application: a checked application, of a schema that the policy was checked against.
        """
        band = self.band_of(probability)
        decision = band.decision
        fired: list[Rule] = []
        for rule, tests in self._tests:
            if all(test(read(application)) for read, test in tests):
                fired.append(rule)
                if SEVERITY[rule.decision] > SEVERITY[decision]:
                    decision = rule.decision
        return Outcome(
            band=band.name,
            decision=decision,
            prediction=int(probability >= self.cut_off),
            scored=band.decision,
            rules=tuple(rule for rule in fired if rule.decision == decision),
        )

    def decide_rows(self, probabilities: Floats, rows: Floats, schema: Schema) -> Outcomes:
        """What `decide` answers to each of many applications.

        Args:
            probabilities: PDs in [0, 1], shape (n,).
            rows: checked applications, shape (n, fields), see `Schema.vector`.
            schema: the schema of the rows, which the policy was checked against.
        """

        def column(field: str) -> Floats:
            return rows[:, schema.index[field]]

        fired = np.ones((len(rows), len(self.rules)), dtype=np.bool_)
        for place, rule in enumerate(self.rules):
            for condition in rule.when:
                if condition.quantity:
                    compared = condition.quantity.of(column)
                    test = _column_test(condition)
                else:
                    spec = schema.fields[schema.index[condition.fields[0]]]
                    compared = column(spec.name)
                    test = _column_test(condition, spec.categories)
                fired[:, place] &= test(compared)
        bands = np.searchsorted(np.array(self._edges), probabilities, side="right")
        scored = np.array([SEVERITY[band.decision] for band in self.bands], dtype=np.int8)[bands]
        called_for = np.array([SEVERITY[rule.decision] for rule in self.rules], dtype=np.int8)
        decisions = np.maximum(scored, (fired * called_for).max(axis=1, initial=0))
        return Outcomes(
            policy=self,
            bands=bands,
            decisions=decisions,
            predictions=(probabilities >= self.cut_off).astype(np.int8),
            scored=scored,
            rules=fired & (called_for == decisions[:, np.newaxis]),
        )

    @cached_property
    def _edges(self) -> list[float]:
        return [band.upper for band in self.bands[:-1]]

    @cached_property
    def _tests(self) -> list[tuple[Rule, list[tuple[Reader, Test]]]]:
        return [(rule, [(_reader(c), _test(c)) for c in rule.when]) for rule in self.rules]


# Of one value or of a whole column: Python's operators mean the same for both.
_OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "ratio": operator.truediv,
    "difference": operator.sub,
    "distance": lambda first, second: abs(first - second),
}
_ORDERINGS: dict[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_EQUALITIES: dict[str, Callable[[Any, Any], Any]] = {"eq": operator.eq, "ne": operator.ne}


def _reader(condition: Condition) -> Reader:
    """What a condition compares, of one application."""
    quantity = condition.quantity
    if quantity is None:
        (field,) = condition.fields
        return lambda application: application.get(field)

    def read(application: Mapping[str, Any]) -> float:
        def number(field: str) -> float:
            value = application.get(field)
            return math.nan if value is None else float(value)

        return float(quantity.of(number))

    return read


def _test(condition: Condition) -> Test:
    value = condition.value
    if condition.op == "missing":
        return lambda actual: actual is None
    if condition.op in ("in", "not-in"):
        members = frozenset(value) if isinstance(value, tuple) else frozenset((value,))
        wanted = condition.op == "in"
        return lambda actual: actual is not None and (actual in members) is wanted
    compare = (_ORDERINGS | _EQUALITIES)[condition.op]
    return lambda actual: actual is not None and compare(actual, value)


def _column_test(
    condition: Condition, categories: tuple[str, ...] = ()
) -> Callable[[Floats], Mask]:
    """`_test` for a column of numbers: categories as their codes, NaN for a missing value."""
    if condition.op == "missing":
        return np.isnan
    given = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    codes = [categories.index(str(v)) if categories else v for v in given]
    values = np.array(codes, dtype=np.float64)
    if condition.op in ("in", "not-in"):
        wanted = condition.op == "in"
        return lambda column: ~np.isnan(column) & (np.isin(column, values) == wanted)
    compare = (_ORDERINGS | _EQUALITIES)[condition.op]
    return lambda column: ~np.isnan(column) & compare(column, values[0])


def _fault(condition: Condition, by_name: Mapping[str, FieldSpec]) -> str | None:
    """What is wrong with a condition, or None."""
    unknown = [name for name in condition.fields if name not in by_name]
    if unknown:
        return "not in the schema" if condition.field else f"{unknown[0]} is not in the schema"
    if condition.quantity:
        return _quantity_fault(condition, condition.quantity, by_name)
    return _field_fault(condition, by_name[condition.fields[0]])


def _quantity_fault(
    condition: Condition, quantity: Quantity, by_name: Mapping[str, FieldSpec]
) -> str | None:
    """What is wrong with comparing this quantity so, or None."""
    categories = [name for name in quantity.fields if by_name[name].is_category]
    if categories:
        return f"{categories[0]} is not a number"
    # Numbers that were computed are hardly ever equal to anything.
    if condition.op not in _ORDERINGS:
        return f"{condition.op} has no meaning for a quantity"
    if not isinstance(condition.value, float):
        return f"{condition.op} takes one number"
    try:
        lower, upper = _bounds(quantity, by_name)
    except ZeroDivisionError:
        return "the denominator may be 0"
    if not lower <= condition.value <= upper:
        return f"{condition.value} is outside the range {lower:g} to {upper:g}"
    return None


def _bounds(operand: str | Quantity, by_name: Mapping[str, FieldSpec]) -> tuple[float, float]:
    """Between what a numeric field or a quantity lies, by interval arithmetic.

    Raises:
        ZeroDivisionError: the denominator of a ratio may be zero.
    """
    if isinstance(operand, str):
        spec = by_name[operand]
        return spec.minimum or 0.0, spec.maximum or 0.0
    (a, b), (c, d) = (_bounds(o, by_name) for o in operand.operands)
    if operand.operation == "ratio":
        if c <= 0.0 <= d:
            raise ZeroDivisionError
        corners = (a / c, a / d, b / c, b / d)
        return min(corners), max(corners)
    if operand.operation == "difference":
        return a - d, b - c
    return max(0.0, a - d, c - b), max(b - c, d - a)


def _field_fault(  # noqa: C901, PLR0911 - a list
    condition: Condition, spec: FieldSpec
) -> str | None:
    """What is wrong with comparing this field so, or None."""
    if condition.op == "missing":
        if condition.value is not None:
            return "missing takes no value"
        return None if spec.nullable else "the field is never missing"
    if condition.op in ("in", "not-in"):
        if not isinstance(condition.value, tuple) or not condition.value:
            return f"{condition.op} takes a list"
        values = condition.value
    else:
        if isinstance(condition.value, tuple) or condition.value is None:
            return f"{condition.op} takes one value"
        values = (condition.value,)
    if spec.is_category:
        if condition.op in _ORDERINGS:
            return f"{condition.op} has no meaning for a category"
        unknown = [v for v in values if v not in spec.categories]
        return f"unknown category {unknown[0]!r}" if unknown else None
    for value in values:
        if isinstance(value, str):
            return f"{value!r} is not a number"
        if (
            spec.minimum is not None
            and spec.maximum is not None
            and not (spec.minimum <= value <= spec.maximum)
        ):
            return f"{value} is outside the field's range"
        if (
            spec.type == "integer"
            and condition.op not in _ORDERINGS
            and not float(value).is_integer()
        ):
            return f"{value} is not a whole number"
    return None
