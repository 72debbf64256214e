"""Scoring: from checked applications to decisions with their reasons. Pure, vectorised.

One application and five hundred take the same path: numbers, log-odds, PD, policy, contributions
of those that need reasons, reason codes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from credit_risk.errors import ExplanationFailed, PackageInvalid
from credit_risk.model import check_additivity, probability
from credit_risk.package import GOLDEN_TOLERANCE, Golden, GoldenRecords

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from credit_risk.package import ModelPackage, Parts
    from credit_risk.policy import Outcome
    from credit_risk.reasons import Reason
    from credit_risk.schema import Application


COLUMNS_FROM = 5
"""So many applications are decided sooner column by column than one by one."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Signed contributions of each field to the log-odds; with the base value they add up."""

    base_value: float
    contributions: dict[str, float]


class Decision(NamedTuple):
    """What was decided about one application, and why.

    A tuple, which takes half as long to make as a frozen dataclass: there is one for each row.
    """

    probability_of_default: float
    log_odds: float
    outcome: Outcome
    reasons: tuple[Reason, ...]
    explanation: Explanation | None


def decide(
    package: Parts,
    applications: Sequence[Application],
    *,
    explain: bool | Sequence[bool] = False,
    stages: list[tuple[str, float]] | None = None,
) -> list[Decision]:
    """Decide about applications that satisfy the package's schema.

    Args:
        package: model, policy and reasons.
        applications: as `Schema.validate_application` returns them; may be empty.
        explain: give every decision its explanation, or those where it is true. For the others
            contributions are computed only if they need reasons from the score.
        stages: where to note the end of each stage, `time.perf_counter`: ``encode`` (to numbers),
            ``score``, ``decide`` (by policy) and ``explain`` (contributions and reasons).

    Returns:
        One decision per application, in order.

    Raises:
        ExplanationFailed: a score is not a finite number, contributions do not add up to it, or
            a decision that needs a reason has none. No decision of the call may be used then.
    """
    if not applications:
        return []
    if stages is None:
        stages = []
    rows = package.schema.matrix(applications)
    stages.append(("encode", time.perf_counter()))
    log_odds = package.model.log_odds(rows)
    if not np.isfinite(log_odds).all():
        msg = "the model's score is not a finite number"
        raise ExplanationFailed(msg)
    probabilities = probability(log_odds)
    pds = probabilities.tolist()
    stages.append(("score", time.perf_counter()))
    policy = package.policy
    if len(applications) < COLUMNS_FROM:
        outcomes = [policy.decide(pd, a) for pd, a in zip(pds, applications, strict=True)]
    else:
        outcomes = policy.decide_rows(probabilities, rows, package.schema).each()
    stages.append(("decide", time.perf_counter()))
    wanted = [explain] * len(outcomes) if isinstance(explain, bool) else explain
    explained = [
        i
        for i, outcome in enumerate(outcomes)
        if wanted[i] or (outcome.decision != "APPROVE" and outcome.scored == outcome.decision)
    ]
    contributions = _contributions(package, rows, log_odds, explained)
    base_value = package.model.base_value
    names = package.schema.names
    decisions = []
    for i, outcome in enumerate(outcomes):
        phi = contributions.get(i)
        decisions.append(
            Decision(
                probability_of_default=pds[i],
                log_odds=float(log_odds[i]),
                outcome=outcome,
                reasons=package.grouping.give(outcome, phi),
                explanation=Explanation(base_value, dict(zip(names, phi.tolist(), strict=True)))
                if wanted[i] and phi is not None
                else None,
            )
        )
    stages.append(("explain", time.perf_counter()))
    return decisions


def _contributions(
    package: Parts,
    rows: npt.NDArray[np.float64],
    log_odds: npt.NDArray[np.float64],
    explained: list[int],
) -> dict[int, npt.NDArray[np.float64]]:
    if not explained:
        return {}
    values = package.model.contributions(rows[explained])
    check_additivity(log_odds[explained], package.model.base_value, values)
    return dict(zip(explained, values, strict=True))


def golden_records(package: Parts, applications: Sequence[Application]) -> GoldenRecords:
    """What the parts answer to some applications, to be kept and compared with; see `decide`."""
    decisions = decide(package, applications)
    return GoldenRecords(
        records=tuple(
            Golden(
                application=application,
                probability_of_default=decision.probability_of_default,
                band=decision.outcome.band,
                decision=decision.outcome.decision,
                reasons=tuple(reason.code for reason in decision.reasons),
            )
            for application, decision in zip(applications, decisions, strict=True)
        )
    )


def check_golden(package: ModelPackage, most: int | None = None) -> None:
    """Score golden records and compare with the answers they must have.

    Args:
        package: the package to try.
        most: how many records to try; None tries all.

    Raises:
        PackageInvalid: an answer differs; names the record.
        ExplanationFailed: see `decide`.
    """
    golden = package.golden[:most]
    if not golden:
        msg = f"package {package.version}: it has no golden records"
        raise PackageInvalid(msg)
    decisions = decide(package, [dict(g.application) for g in golden])
    for number, (expected, got) in enumerate(zip(golden, decisions, strict=True)):
        difference = abs(expected.probability_of_default - got.probability_of_default)
        same = (
            difference <= GOLDEN_TOLERANCE
            and expected.band == got.outcome.band
            and expected.decision == got.outcome.decision
            and expected.reasons == tuple(reason.code for reason in got.reasons)
        )
        if not same:
            msg = f"package {package.version}: golden record {number} is answered differently here"
            raise PackageInvalid(msg)
