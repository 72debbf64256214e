"""The promotion gate: what a candidate has shown, held against what a portfolio asks of one.

It starts nothing: a candidate that passes decides once enough people have approved it, and somebody
says so. What is not shown is not assumed: it refuses the candidate, unless the policy says that a
criterion is optional. Where nothing decides yet, what compares with it does not apply.

Figures of performance are of applicants that neither package was fitted on. Those whom both were
asked about while one decided, with their outcomes, come first. Until there are enough of them, each
package has the figures of rows held out of its own training; those of one package on rows that the
other learned from are nowhere used, since they flatter it.

Whom both were asked about counts since the candidate began to challenge, and for so many days back
as the policy says; outcomes, which take months, since it began.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, Field, ValidationError

from credit_risk import documents
from credit_risk.audit.records import moment
from credit_risk.documents import Document
from credit_risk.errors import PortfolioInvalid
from credit_risk.significance import Z

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from credit_risk.challenger import Contest
    from credit_risk.rivals import Beside

FILE = "promotion.yaml"

State: TypeAlias = Literal["met", "failed", "not shown", "does not apply"]
Verdict: TypeAlias = Literal["PASSED", "REFUSED"]

LEAST_ROWS = 500
"""Fewer applicants that both were asked about have no score stability to show; fewer that both were
timed on, which are some of those, no latency."""


class Most(Document):
    """A measure must not be above ``most``; ``optional``: where it is not shown, so be it."""

    most: Annotated[float, Field(ge=0)]
    optional: bool = False


class Least(Document):
    """A measure must not be below ``least``; ``optional``: where it is not shown, so be it."""

    least: Annotated[float, Field(ge=0)]
    optional: bool = False


class Criteria(Document):
    """What a candidate has to satisfy; a criterion that is left out is not looked at."""

    auc_loss: Most | None = None
    calibration_error: Most | None = None
    miscalibration: Most | None = None
    score_psi: Most | None = None
    additivity_error: Most | None = None
    same_first_reason: Least | None = None
    group_ratio: Least | None = None
    latency_ratio: Most | None = None
    shadow_rows: Least | None = None
    shadow_failures: Most | None = None
    agreement: Least | None = None


class PromotionPolicy(Document):
    """``promotion.yaml``: what it takes that a package decides, and how many people approve it."""

    portfolio: str
    version: str
    approvals: Annotated[int, Field(ge=0, le=2)] = 2
    shadow_days: Annotated[int, Field(ge=1, le=366)] = 30
    criteria: Criteria


class HoldOut(BaseModel):
    """What a package says of rows that were held out of its training, as far as it is used here."""

    rows: int
    defaults: int
    roc_auc: float
    ece_equal_count: float
    ece_equal_width: float

    @classmethod
    def of(cls, metrics: dict[str, Any]) -> HoldOut | None:
        """The figures in a package's metrics; None where there are none."""
        try:
            return cls.model_validate(metrics.get("hold_out"))
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a candidate; None is not known.

    ``fault`` is what is wrong with its package, None if nothing is. ``first`` is true where nothing
    decides yet. ``contest`` is what became of applicants that both it and the package that decides
    were asked about ``since`` then, microseconds since the epoch; ``left_out`` are others that they
    were asked about, too long ago or before it challenged, and those that were decided in the
    future. ``beside`` is what both make of drawn ones. ``same_first_reason`` is the share of
    declines with the same first reason against the real reference group as against the drawn one,
    ``additivity_error`` by how much a score and its explanation differ at most, in log-odds.
    """

    fault: str | None = None
    first: bool = False
    candidate: HoldOut | None = None
    champion: HoldOut | None = None
    contest: Contest | None = None
    since: int | None = None
    left_out: int = 0
    beside: Beside | None = None
    same_first_reason: float | None = None
    additivity_error: float | None = None


class Criterion(Document):
    """One measure beside its limit. ``value`` is None where it is not shown."""

    measure: str
    title: str
    value: float | None
    detail: str
    most: float | None
    least: float | None
    optional: bool
    state: State


class Judgement(Document):
    """Whether a candidate may decide, as far as figures go; ``reasons`` say why not."""

    verdict: Verdict
    reasons: tuple[str, ...]
    criteria: tuple[Criterion, ...]


class _Measured(NamedTuple):
    """A measure, what it is of, and whether chance alone could have it beyond its limit."""

    value: float
    detail: str
    by_chance: bool = False


def read(folder: Path, name: str) -> PromotionPolicy:
    """The promotion policy in the folder of the portfolio ``name``.

    Raises:
        PortfolioInvalid: the file is missing or wrong, or belongs to another portfolio.
    """
    policy = documents.read(PromotionPolicy, folder / FILE)
    if policy.portfolio != name:
        msg = f"{folder / FILE}: it says that it belongs to portfolio {policy.portfolio!r}"
        raise PortfolioInvalid(msg)
    return policy


def judge(policy: PromotionPolicy, evidence: Evidence) -> Judgement:
    """Hold what a candidate has shown against the policy."""
    criteria = [_integrity(evidence)]
    criteria += [
        _criterion(name, measure, limit, evidence)
        for name, measure in _MEASURES.items()
        if (limit := getattr(policy.criteria, name)) is not None
    ]
    against = [c for c in criteria if c.state == "failed"]
    against += [c for c in criteria if c.state == "not shown" and not c.optional]
    reasons = [_reason(c) for c in against]
    if reasons and evidence.left_out:
        reasons.append(f"Of applicants both were asked about, {_left_out(evidence)}.")
    return Judgement(
        verdict="REFUSED" if against else "PASSED",
        reasons=tuple(reasons),
        criteria=tuple(criteria),
    )


def _integrity(evidence: Evidence) -> Criterion:
    """The criterion that no policy leaves out."""
    sound = "every file matches its sum, and golden records have their answers"
    return Criterion(
        measure="integrity",
        title="Package is whole",
        value=None,
        detail=evidence.fault or sound,
        most=None,
        least=None,
        optional=False,
        state="met" if evidence.fault is None else "failed",
    )


def _criterion(name: str, measure: _Measure, limit: Most | Least, evidence: Evidence) -> Criterion:
    found = None
    state: State = "not shown"
    if measure.compares and evidence.first:
        state = "does not apply"
    elif (found := measure.of(evidence)) is not None:
        within = (
            found.value <= limit.most if isinstance(limit, Most) else found.value >= limit.least
        )
        state = "met" if within or found.by_chance else "failed"
    return Criterion(
        measure=name,
        title=measure.title,
        value=None if found is None else found.value,
        detail="" if found is None else found.detail,
        most=limit.most if isinstance(limit, Most) else None,
        least=limit.least if isinstance(limit, Least) else None,
        optional=limit.optional,
        state=state,
    )


def _reason(criterion: Criterion) -> str:
    if criterion.measure == "integrity":
        return f"{criterion.title}: it is not: {criterion.detail}."
    limit = (
        f"at least {criterion.least:.4g}"
        if criterion.most is None
        else f"at most {criterion.most:.4g}"
    )
    if criterion.state == "not shown":
        return f"{criterion.title}: not shown, and {limit} is asked for."
    detail = f" ({criterion.detail})" if criterion.detail else ""
    return f"{criterion.title}: {criterion.value:.4g}{detail}, and {limit} is asked for."


def _auc_loss(evidence: Evidence) -> _Measured | None:
    """By how much AUC may be below the champion's: as the difference's interval ends at worst."""
    if evidence.contest is not None and evidence.contest.outcomes.differences is not None:
        found = evidence.contest.outcomes.differences.auc
        rows = evidence.contest.outcomes.rows
        detail = f"{found.value:+.4f} on {rows:,} applicants whose outcome is known"
        return _Measured(max(-found.low, 0.0), detail)
    one, other = evidence.champion, evidence.candidate
    if one is None or other is None:
        return None
    apart = other.roc_auc - one.roc_auc
    error = math.hypot(_auc_error(one), _auc_error(other))
    detail = (
        f"{apart:+.4f}, {other.roc_auc:.4f} against {one.roc_auc:.4f}, each on rows held out of "
        "its own training"
    )
    return _Measured(max(Z * error - apart, 0.0), detail)


def _auc_error(of: HoldOut) -> float:
    """The standard error of an AUC (J. A. Hanley and B. J. McNeil, Radiology 143, 1982, eq. 1)."""
    auc, bad, good = of.roc_auc, of.defaults, of.rows - of.defaults
    if min(bad, good) < 1:
        return math.inf
    one, two = auc / (2.0 - auc), 2.0 * auc**2 / (1.0 + auc)
    spread = auc * (1.0 - auc) + (bad - 1) * (one - auc**2) + (good - 1) * (two - auc**2)
    return math.sqrt(max(spread, 0.0) / (bad * good))


def _calibration_error(evidence: Evidence) -> _Measured | None:
    if evidence.candidate is None:
        return None
    worst = max(evidence.candidate.ece_equal_count, evidence.candidate.ece_equal_width)
    return _Measured(worst, f"{evidence.candidate.rows:,} rows held out of training")


def _miscalibration(evidence: Evidence) -> _Measured | None:
    """Defaults over those expected, or the other way round, of applicants both were asked about."""
    if evidence.contest is None or evidence.contest.outcomes.challenger is None:
        return None
    found = evidence.contest.outcomes.challenger.calibration
    detail = f"{found.value:.4f} defaults for each that was expected"
    ratio = max(found.value, 1.0 / found.value)
    return _Measured(ratio, detail, by_chance=found.low <= 1.0 <= found.high)


def _score_psi(evidence: Evidence) -> _Measured | None:
    contest, beside = evidence.contest, evidence.beside
    if contest is not None and contest.scores is not None and contest.rows >= LEAST_ROWS:
        return _Measured(contest.scores.psi, f"{contest.rows:,} applicants both were asked about")
    if beside is None or beside.score_psi is None:
        return None
    return _Measured(beside.score_psi, f"{beside.rows:,} applicants drawn from the reference")


def _additivity_error(evidence: Evidence) -> _Measured | None:
    if evidence.additivity_error is None:
        return None
    return _Measured(evidence.additivity_error, "log-odds, of drawn applicants")


def _same_first_reason(evidence: Evidence) -> _Measured | None:
    if evidence.same_first_reason is None:
        return None
    return _Measured(evidence.same_first_reason, "against the real reference group")


def _group_ratio(evidence: Evidence) -> _Measured | None:
    """The least that a group's approval-rate ratio is times what it is with the champion."""
    if evidence.contest is None:
        return None
    found = [(f.worst, f.attribute) for f in evidence.contest.fairness if f.worst is not None]
    if not found:
        return None
    # Of those beyond chance, if there are any: a small group's may be lower by it alone.
    beyond = [(worst, of) for worst, of in found if worst.high < 1.0]
    worst, attribute = min(beyond or found, key=lambda pair: pair[0].value)
    return _Measured(worst.value, attribute, by_chance=not beyond)


def _latency_ratio(evidence: Evidence) -> _Measured | None:
    contest, beside = evidence.contest, evidence.beside
    timed = None if contest is None else contest.latency
    if timed is not None and timed.rows >= LEAST_ROWS:
        return _Measured(timed.ratio, f"{timed.rows:,} applicants both were timed on")
    if beside is None:
        return None
    only = "" if timed is None else f"; of those asked about, both were timed on {timed.rows:,}"
    return _Measured(beside.latency_ratio, f"{beside.timed:,} drawn applicants, one by one{only}")


def _shadow_rows(evidence: Evidence) -> _Measured | None:
    detail = "" if evidence.since is None else f"since {moment(evidence.since)}"
    return _Measured(0 if evidence.contest is None else evidence.contest.rows, detail)


def _left_out(evidence: Evidence) -> str:
    number = f"{evidence.left_out:,} do not count"
    if evidence.since is None:
        return f"{number}: the candidate has not challenged"
    return f"{number}: they were decided before {moment(evidence.since)}, or later than now"


def _shadow_failures(evidence: Evidence) -> _Measured | None:
    if evidence.contest is None or evidence.contest.challenger_failures.rate is None:
        return None
    failures = evidence.contest.challenger_failures
    return _Measured(failures.failed / failures.asked, f"{failures.failed:,} of {failures.asked:,}")


def _agreement(evidence: Evidence) -> _Measured | None:
    if evidence.contest is None or evidence.contest.agreement is None:
        return None
    return _Measured(evidence.contest.agreement.value, f"{evidence.contest.rows:,} applicants")


class _Measure(NamedTuple):
    """``compares``: with the package that decides, so that there has to be one."""

    title: str
    of: Callable[[Evidence], _Measured | None]
    compares: bool = True


_MEASURES = {
    "auc_loss": _Measure("AUC that may be lost, at worst", _auc_loss),
    "calibration_error": _Measure("Calibration error", _calibration_error, compares=False),
    "miscalibration": _Measure("Defaults against those expected, as a factor", _miscalibration),
    "score_psi": _Measure("Stability of the score", _score_psi),
    "additivity_error": _Measure("Score and explanation apart", _additivity_error, compares=False),
    "same_first_reason": _Measure("Same first reason", _same_first_reason, compares=False),
    "group_ratio": _Measure("Approval-rate ratio of a group, times the champion's", _group_ratio),
    "latency_ratio": _Measure(
        "Time that an application takes, times the champion's", _latency_ratio
    ),
    "shadow_rows": _Measure("Applicants both were asked about", _shadow_rows),
    "shadow_failures": _Measure("Share of them without an answer", _shadow_failures),
    "agreement": _Measure("Share of the same decisions", _agreement),
}
