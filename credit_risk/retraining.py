"""Whether it is time to think of retraining: evidence held against a portfolio's own limits.

It starts nothing. A person reads the verdict and why, and decides.

A measure counts against the model only where it is beyond chance as well as beyond its limit. What
is not known is said, and is no evidence of anything; but of a model about which neither drift nor
performance is known, nobody can say that retraining is not needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, TypeAlias

from pydantic import Field, model_validator

from credit_risk import documents
from credit_risk.documents import Document
from credit_risk.drift import LEAST_ROWS, Drift
from credit_risk.errors import PortfolioInvalid
from credit_risk.performance import LEAST_OF_EACH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from credit_risk.drift import Comparison, Shares
    from credit_risk.performance import Figures, Performance

FILE = "monitoring.yaml"

Verdict: TypeAlias = Literal["NOT_NEEDED", "WATCH", "RECOMMENDED"]
State: TypeAlias = Literal["unknown", "fine", "watch", "recommend"]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Limit(Document):
    """From where on a measure is to be watched, and from where on retraining is recommended."""

    watch: Positive | None = None
    recommend: Positive | None = None

    @model_validator(mode="after")
    def _is_in_order(self) -> Limit:
        if self.watch is not None and self.recommend is not None and self.watch > self.recommend:
            msg = "watch is above recommend"
            raise ValueError(msg)
        return self


class Limits(Document):
    """The limits of each measure; one that is left out is not looked at.

    That data are missing or unheard of is a fault to mend where they come from: it may be watched,
    and a model trained on them would be the worse.
    """

    score_psi: Limit | None = None
    field_psi: Limit | None = None
    major_windows: Limit | None = None
    auc_loss: Limit | None = None
    expected_auc_loss: Limit | None = None
    miscalibration: Limit | None = None
    missing_rise: Limit | None = None
    unseen: Limit | None = None
    out_of_range_rise: Limit | None = None
    age_days: Limit | None = None


class MonitoringPolicy(Document):
    """``monitoring.yaml``: how a portfolio's model is watched; no decision depends on it.

    ``outcome_months`` after a decision, who has not defaulted is taken to have paid. Performance is
    evidence only from ``least_coverage`` on, see `performance.Performance`.
    """

    portfolio: str
    version: str
    outcome_months: Annotated[int, Field(ge=1, le=120)] = 12
    least_coverage: Share = 0.5
    limits: Limits


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a model; None is not known.

    ``drift`` is that of the last window, ``history`` the verdicts of windows one after another, the
    last one included and last. ``performance`` is of decisions that had the whole outcome period:
    before, defaults are known and those who will pay are not. ``expected`` are the figures
    estimated of all recent applicants, and ``development_auc`` that of the rows held out from
    training.
    """

    drift: Drift | None = None
    history: Sequence[str] = ()
    performance: Performance | None = None
    expected: Figures | None = None
    development_auc: float | None = None
    age_days: int | None = None


class Criterion(Document):
    """One measure beside its limits.

    ``value`` is None where it is not known; ``detail`` says why then, else what it is of.
    """

    measure: str
    title: str
    value: float | None
    detail: str
    watch: float | None
    recommend: float | None
    state: State


class Check(Document):
    """A verdict on retraining and what it rests on; ``reasons`` are sentences for people."""

    verdict: Verdict
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...]


class _Measured(NamedTuple):
    """A measure, whether chance alone could have made it, and what it is of."""

    value: float
    beyond_chance: bool
    detail: str


class _Trusted(NamedTuple):
    """Figures that are evidence, beside those expected of the same applications."""

    figures: Figures
    expected: Figures


_WHOLE = 1_000.0
_FEW = "there are too few applicants"


def read(portfolio: Path, name: str) -> MonitoringPolicy:
    """The monitoring policy in the folder of the portfolio ``name``.

    Raises:
        PortfolioInvalid: the file is missing or wrong, or belongs to another portfolio.
    """
    policy = documents.read(MonitoringPolicy, portfolio / FILE)
    if policy.portfolio != name:
        msg = f"{portfolio / FILE}: it says that it belongs to portfolio {policy.portfolio!r}"
        raise PortfolioInvalid(msg)
    return policy


def check(policy: MonitoringPolicy, evidence: Evidence) -> Check:
    """Hold evidence against the limits."""
    trusted = _trusted(policy, evidence.performance)
    criteria = [
        _criterion(name, title, limit, measure(evidence, trusted))
        for name, (title, measure) in _MEASURES.items()
        if (limit := getattr(policy.limits, name)) is not None
    ]
    states = {criterion.state for criterion in criteria}
    known = not isinstance(trusted, str) or (
        evidence.drift is not None and evidence.drift.verdict != "too-few"
    )
    verdict: Verdict = "NOT_NEEDED"
    if "recommend" in states:
        verdict = "RECOMMENDED"
    elif "watch" in states or not known:
        verdict = "WATCH"
    reasons = [_reason(c) for state in ("recommend", "watch") for c in criteria if c.state == state]
    if not known:
        reasons.append("Neither drift nor performance is known: too few decisions, no outcomes.")
    reasons += [f"{c.title}: not known: {c.detail}." for c in criteria if c.state == "unknown"]
    if not reasons:
        reasons.append("Every measure is within its limits, or no further from it than chance is.")
    return Check(verdict=verdict, reasons=tuple(reasons), criteria=tuple(criteria))


def _trusted(policy: MonitoringPolicy, found: Performance | None) -> _Trusted | str:
    """Performance that is evidence: of enough outcomes; else what is missing."""
    if found is None or found.not_enough is not None:
        known = "no outcomes are known" if found is None else found.not_enough
        return f"{known}, of decisions made {policy.outcome_months} months ago or before"
    if found.coverage < policy.least_coverage:
        return (
            f"{found.coverage:.1%} of those accepted have an outcome, and "
            f"{policy.least_coverage:.1%} are needed"
        )
    if found.figures is None or found.expected is None:
        return f"PDs let expect fewer than {LEAST_OF_EACH} defaults, or {LEAST_OF_EACH} others"
    return _Trusted(found.figures, found.expected)


def _criterion(name: str, title: str, limit: Limit, measured: _Measured | str) -> Criterion:
    value = None if isinstance(measured, str) else measured.value
    state: State = "fine"
    if isinstance(measured, str):
        state = "unknown"
    elif not measured.beyond_chance:
        state = "fine"
    elif limit.recommend is not None and measured.value >= limit.recommend:
        state = "recommend"
    elif limit.watch is not None and measured.value >= limit.watch:
        state = "watch"
    return Criterion(
        measure=name,
        title=title,
        value=value,
        detail=measured if isinstance(measured, str) else measured.detail,
        watch=limit.watch,
        recommend=limit.recommend,
        state=state,
    )


def _reason(criterion: Criterion) -> str:
    limit = criterion.recommend if criterion.state == "recommend" else criterion.watch
    detail = f" ({criterion.detail})" if criterion.detail else ""
    value, limited = (figure(one) for one in (criterion.value, limit) if one is not None)
    return f"{criterion.title}: {value}{detail}, where the limit is {limited}."


def figure(value: float) -> str:
    """A measure or a limit for people: of four digits, or whole."""
    return f"{value:,.0f}" if abs(value) >= _WHOLE else f"{value:.4g}"


def _score_psi(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    if evidence.drift is None or evidence.drift.score is None:
        return _FEW
    return _largest([evidence.drift.score])


def _field_psi(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    return _FEW if evidence.drift is None else _largest(evidence.drift.fields)


def _largest(compared: Sequence[Comparison]) -> _Measured | str:
    known = [c for c in compared if c.verdict != "too-few" and c.critical is not None]
    if not known:
        return _FEW
    # Of those beyond chance, if there are any: a field of few bins has the lower critical value.
    beyond = [c for c in known if c.critical is not None and c.psi > c.critical]
    worst = max(beyond or known, key=lambda c: c.psi)
    return _Measured(worst.psi, bool(beyond), worst.field)


def _major_windows(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    """How many windows up to the last one were major without one between that was not."""
    known = [verdict for verdict in evidence.history if verdict != "too-few"]
    if not known:
        return _FEW
    number = 0
    while number < len(known) and known[-1 - number] == "major":
        number += 1
    return _Measured(number, beyond_chance=True, detail="")


def _auc_loss(_: Evidence, trusted: _Trusted | str) -> _Measured | str:
    if isinstance(trusted, str):
        return trusted
    found, expected = trusted.figures.auc, trusted.expected.auc
    detail = (
        f"{found.value:.4f} of those with an outcome, and {expected.value:.4f} if PDs were true"
    )
    return _Measured(expected.value - found.value, found.high < expected.value, detail)


def _expected_auc_loss(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    if evidence.development_auc is None:
        return "the package does not say what it was"
    if evidence.expected is None:
        return _FEW
    found, then = evidence.expected.auc, evidence.development_auc
    detail = f"{found.value:.4f} of recent applicants if PDs are true, {then:.4f} in development"
    return _Measured(then - found.value, found.high < then, detail)


def _miscalibration(_: Evidence, trusted: _Trusted | str) -> _Measured | str:
    if isinstance(trusted, str):
        return trusted
    found = trusted.figures.calibration
    ratio = max(found.value, 1.0 / found.value)
    detail = f"{found.value:.4f} defaults for each that was expected"
    return _Measured(ratio, not found.low <= 1.0 <= found.high, detail)


def _missing_rise(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    return _rise(evidence, lambda c: c.missing)


def _unseen(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    return _rise(evidence, lambda c: c.unseen)


def _out_of_range_rise(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    return _rise(evidence, lambda c: c.out_of_range)


def _rise(evidence: Evidence, shares: Callable[[Comparison], Shares | None]) -> _Measured | str:
    if evidence.drift is None or evidence.drift.rows < LEAST_ROWS:
        return _FEW
    found = [(s, c) for c in evidence.drift.fields if (s := shares(c)) is not None]
    if not found:
        return _Measured(0.0, beyond_chance=False, detail="no field can have any")
    worst, field = max(found, key=lambda pair: pair[0].share - pair[0].reference)
    rise = worst.share - worst.reference
    # Three standard errors, for the largest of several.
    deviation = (worst.reference * (1.0 - worst.reference) / evidence.drift.rows) ** 0.5
    return _Measured(rise, rise > 3.0 * deviation, field.field)


def _age_days(evidence: Evidence, _: _Trusted | str) -> _Measured | str:
    if evidence.age_days is None:
        return "nothing on record says when it began"
    return _Measured(evidence.age_days, beyond_chance=True, detail="days since it began")


_MEASURES: dict[str, tuple[str, Callable[[Evidence, _Trusted | str], _Measured | str]]] = {
    "score_psi": ("Drift of the score", _score_psi),
    "field_psi": ("Drift of a field", _field_psi),
    "major_windows": ("Windows in a row with major drift", _major_windows),
    "auc_loss": ("AUC lost since development, as outcomes show", _auc_loss),
    "expected_auc_loss": ("AUC lost since development, as PDs let expect", _expected_auc_loss),
    "miscalibration": ("Defaults against those expected, as a factor", _miscalibration),
    "missing_rise": ("More is missing than in the reference", _missing_rise),
    "unseen": ("Categories the model does not know", _unseen),
    "out_of_range_rise": ("More is out of the reference's range", _out_of_range_rise),
    "age_days": ("Age of the model", _age_days),
}
