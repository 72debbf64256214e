"""The policy: from a probability of default and an application to a band and a decision.

The model gives risk; the policy decides. A policy is a versioned data file: bands by PD, each with
its decision, and declarative rules. A knock-out rule declines, a referral rule asks for a person;
a rule can make the band's decision stricter, never milder.
"""

from __future__ import annotations

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


class Condition(Document):
    """One comparison. A comparison with a missing value is false; ``missing`` is true for it."""

    field: str
    op: Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "not-in", "missing"]
    value: float | str | tuple[float | str, ...] | None = None


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


class Policy(Document):
    """A portfolio's decision policy."""

    portfolio: str
    version: str
    cut_off: Probability
    bands: Annotated[tuple[Band, ...], Field(min_length=len(BAND_ORDER), max_length=4)]
    rules: tuple[Rule, ...] = ()

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
            PortfolioInvalid: a rule names an unknown field, or compares it with a value that
                the field can never hold or by an operator that has no meaning for it.
        """
        by_name = {f.name: f for f in schema.fields}
        for rule in self.rules:
            for condition in rule.when:
                where = f"policy rule {rule.name}, field {condition.field}"
                spec = by_name.get(condition.field)
                if spec is None:
                    msg = f"{where}: not in the schema"
                    raise PortfolioInvalid(msg)
                fault = _fault(condition, spec)
                if fault is not None:
                    msg = f"{where}: {fault}"
                    raise PortfolioInvalid(msg)

    def band_of(self, probability: float) -> Band:
        """The band a PD falls into; ``probability`` must lie in [0, 1]."""
        return self.bands[bisect_right(self._edges, probability)]

    def decide(self, probability: float, application: Mapping[str, Any]) -> Outcome:
        """Band, decision and the rules behind it.

        Args:
            probability: PD in [0, 1].
            application: a checked application.
        """
        band = self.band_of(probability)
        decision = band.decision
        fired: list[Rule] = []
        for rule, tests in self._tests:
            if all(test(application.get(field)) for field, test in tests):
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
        fired = np.ones((len(rows), len(self.rules)), dtype=np.bool_)
        for place, rule in enumerate(self.rules):
            for condition in rule.when:
                field = schema.index[condition.field]
                fired[:, place] &= _column_test(condition, schema.fields[field])(rows[:, field])
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
    def _tests(self) -> list[tuple[Rule, list[tuple[str, Callable[[Any], bool]]]]]:
        return [(rule, [(c.field, _test(c)) for c in rule.when]) for rule in self.rules]


# Of one value or of a whole column: Python's operators mean the same for both.
_ORDERINGS: dict[str, Callable[[Any, Any], Any]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_EQUALITIES: dict[str, Callable[[Any, Any], Any]] = {"eq": operator.eq, "ne": operator.ne}


def _test(condition: Condition) -> Callable[[Any], bool]:
    value = condition.value
    if condition.op == "missing":
        return lambda actual: actual is None
    if condition.op in ("in", "not-in"):
        members = frozenset(value) if isinstance(value, tuple) else frozenset((value,))
        wanted = condition.op == "in"
        return lambda actual: actual is not None and (actual in members) is wanted
    compare = (_ORDERINGS | _EQUALITIES)[condition.op]
    return lambda actual: actual is not None and compare(actual, value)


def _column_test(condition: Condition, spec: FieldSpec) -> Callable[[Floats], Mask]:
    """`_test` for a column of numbers: categories as their codes, NaN for a missing value."""
    if condition.op == "missing":
        return np.isnan
    given = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    codes = [spec.categories.index(str(v)) if spec.is_category else v for v in given]
    values = np.array(codes, dtype=np.float64)
    if condition.op in ("in", "not-in"):
        wanted = condition.op == "in"
        return lambda column: ~np.isnan(column) & (np.isin(column, values) == wanted)
    compare = (_ORDERINGS | _EQUALITIES)[condition.op]
    return lambda column: ~np.isnan(column) & compare(column, values[0])


def _fault(condition: Condition, spec: FieldSpec) -> str | None:  # noqa: C901, PLR0911 - a list
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
