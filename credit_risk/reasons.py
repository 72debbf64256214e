"""Reason codes: from contributions in log-odds to what an applicant may be told.

Contributions of one-hot and derived columns are already summed back to the applicant's own
fields. Here fields are summed to reason groups, only groups that raised the risk are kept, and
they are ordered by how much they raised it. The wording is the portfolio's approved dictionary.

Which components may speak (Regulation B's official interpretation, 12 CFR 1002.9(b)(2)): a
decision that the score called for gives the scored factors; one that a rule called for gives that
rule's factor; one that both called for gives both, the rule's first.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from credit_risk.documents import Document
from credit_risk.errors import ExplanationFailed, PortfolioInvalid

if TYPE_CHECKING:
    import numpy.typing as npt

    from credit_risk.policy import Outcome, Policy
    from credit_risk.schema import Schema

MOST = 4
"""More than four reasons are "not likely to be helpful" (12 CFR 1002.9(b)(2), comment 1)."""


class ReasonText(Document):
    """One approved reason."""

    code: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    text: Annotated[str, Field(min_length=3, max_length=200)]


class ReasonDictionary(Document):
    """The portfolio's approved reasons.

    ``least_share`` is the part of all adverse contributions below which a group is not called a
    principal reason.
    """

    portfolio: str
    version: str
    least_share: Annotated[float, Field(ge=0.0, lt=0.25)]
    reasons: Annotated[tuple[ReasonText, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _codes_are_unique(self) -> ReasonDictionary:
        if len(self.texts) != len(self.reasons):
            msg = "reasons: codes are not unique"
            raise ValueError(msg)
        return self

    @cached_property
    def texts(self) -> dict[str, str]:
        """Approved text of each code."""
        return {reason.code: reason.text for reason in self.reasons}

    def check(self, schema: Schema, policy: Policy) -> None:
        """Check that each reason the schema and the policy name has a text, and none is idle.

        Raises:
            PortfolioInvalid: see `check_codes`; or a text has no use.
        """
        used = self.check_codes(schema, policy)
        idle = sorted(set(self.texts) - used)
        if idle:
            msg = f"reason {idle[0]} is used by no field and no rule"
            raise PortfolioInvalid(msg)

    def check_codes(self, schema: Schema, policy: Policy) -> set[str]:
        """Check that each reason the schema and the policy name has a text; returns their codes.

        Raises:
            PortfolioInvalid: a code has no approved text, or two.
        """
        used = {f.reason: f"field {f.name}" for f in schema.fields}
        used |= {r.reason: f"rule {r.name}" for r in policy.rules}
        for code, user in used.items():
            if code not in self.texts:
                msg = f"reason {code} of {user} has no approved text"
                raise PortfolioInvalid(msg)
        for reason in policy.review.reasons:
            if self.texts.get(reason.code, reason.text) != reason.text:
                msg = f"reason {reason.code} of review has another text among the reasons"
                raise PortfolioInvalid(msg)
        return set(used)


class Reason(NamedTuple):
    """One reason for a decision.

    ``fields`` are the application fields behind it. ``contribution`` is how much they raised the
    log-odds of default against the reference group; None where a rule speaks.
    """

    code: str
    text: str
    fields: tuple[str, ...]
    contribution: float | None


class Grouping:
    """Sums field contributions to reason groups, and ranks them."""

    def __init__(self, schema: Schema, dictionary: ReasonDictionary) -> None:
        self._dictionary = dictionary
        self._names = schema.names
        codes = sorted({f.reason for f in schema.fields})
        self._codes = codes
        self._members = [
            [i for i, f in enumerate(schema.fields) if f.reason == code] for code in codes
        ]

    def scored(self, contributions: npt.NDArray[np.float64]) -> list[Reason]:
        """Adverse reason groups of one application, most adverse first, at most `MOST`.

        Args:
            contributions: shape (fields,), log-odds.

        Ties are broken by code, so that the same input always gives the same order.
        """
        values = contributions.tolist()
        sums = [
            (-total, code, members)
            for code, members in zip(self._codes, self._members, strict=True)
            if (total := sum([values[i] for i in members])) > 0.0
        ]
        if not sums:
            return []
        sums.sort()
        # The largest group speaks however small its share, so that there is always a reason.
        least = min(self._dictionary.least_share * -sum(s[0] for s in sums), -sums[0][0])
        return [
            Reason(
                code=code,
                text=self._dictionary.texts[code],
                fields=tuple([self._names[i] for i in members if values[i] > 0.0]),
                contribution=-negated,
            )
            for negated, code, members in sums[:MOST]
            if -negated >= least
        ]

    def give(
        self, outcome: Outcome, contributions: npt.NDArray[np.float64] | None
    ) -> tuple[Reason, ...]:
        """The reasons for one decision; none for an approval.

        Args:
            outcome: what the policy decided.
            contributions: shape (fields,), log-odds; needed when the score called for the
                decision.

        Raises:
            ExplanationFailed: a decline has no reason.
        """
        if outcome.decision == "APPROVE":
            return ()
        by_code: dict[str, Reason] = {}
        for rule in outcome.rules:
            fields = tuple(
                dict.fromkeys(name for condition in rule.when for name in condition.fields)
            )
            text = self._dictionary.texts[rule.reason]
            by_code.setdefault(rule.reason, Reason(rule.reason, text, fields, None))
        if outcome.scored == outcome.decision and contributions is not None:
            for reason in self.scored(contributions):
                by_code.setdefault(reason.code, reason)
        # An applicant better than the group's average may still be referred by a strict policy;
        # nothing adverse is there to be said then. A decline without a reason is no decision.
        if not by_code and outcome.decision == "DECLINE":
            msg = "a decision of DECLINE has no adverse reason"
            raise ExplanationFailed(msg)
        return tuple(by_code.values())[:MOST]
