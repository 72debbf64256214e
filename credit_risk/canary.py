"""The canary: a challenger that decides about a share of applicants, and who they are.

Whoever it fails is decided by the champion instead, in what is left of the time, so that nobody
goes without an answer for its sake. It has a batcher of its own, with a thread of its own: rows of
two packages in one queue would break each other's batches, and a slow one would keep the other
waiting. One that fails again and again takes no more applicants, for those it fails wait for it;
whoever follows challenges then suspends it, on record (`credit_risk.serving.activation`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from credit_risk import challenges

if TYPE_CHECKING:
    from credit_risk.batching import Batcher
    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

FAILURES_MOST = 5
"""Calls in a row that a challenger may fail before it is suspended."""


@dataclass(slots=True)
class Trials:
    """How a challenger does: ``failures`` are calls in a row that it failed, ``last`` the error."""

    failures: int = 0
    last: Exception | None = None

    @property
    def failed(self) -> bool:
        """Whether it failed too often."""
        return self.failures >= FAILURES_MOST

    def went_well(self) -> None:
        """It decided."""
        if not self.failed:
            self.failures = 0

    def went_wrong(self, error: Exception) -> None:
        """It raised an error, or took too long."""
        self.failures += 1
        self.last = error


@dataclass(frozen=True, slots=True)
class Canary:
    """A challenger that decides, with its own batcher.

    ``applicant`` stands for whoever applies, where that is known; ``trials`` are this worker's.
    """

    challenge: Challenge
    package: ModelPackage
    batcher: Batcher
    applicant: bytes | None = None
    trials: Trials = field(default_factory=Trials, compare=False)

    def of(self, applicant: bytes | None) -> Canary:
        """The same for an applicant."""
        return self if applicant is None else replace(self, applicant=applicant)

    def takes(self, champion: ModelPackage, application: Application) -> bool:
        """Whether the challenger decides about the application, which is one of the champion's.

        It does not where the two take different applications: the champion was switched since.
        Nor does one that failed too often.
        """
        if self.trials.failed or not self.package.takes_what(champion):
            return False
        key = challenges.key_of(application) if self.applicant is None else self.applicant
        return challenges.takes(self.challenge, key)

    def mark(self, *, decided: bool) -> dict[str, str]:
        """What the record of a decision says of it: who decided, or that it failed to."""
        return {"challenge" if decided else "challenge_failed": self.challenge.id}
