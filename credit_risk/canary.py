"""The canary: a challenger that decides about a share of applicants, and who they are.

Whoever it fails is decided by the champion instead, in what is left of the time, so that nobody
goes without an answer for its sake. It has a batcher of its own: rows of two packages in one queue
would break each other's batches, and a slow one would keep the other waiting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from credit_risk import challenges

if TYPE_CHECKING:
    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage
    from credit_risk.schema import Application

_SCHEMA = "schema.yaml"


@dataclass(frozen=True, slots=True)
class Canary:
    """A challenger that decides; ``applicant`` stands for whoever applies, where that is known."""

    challenge: Challenge
    package: ModelPackage
    applicant: bytes | None = None

    def of(self, applicant: bytes | None) -> Canary:
        """The same for an applicant."""
        return self if applicant is None else replace(self, applicant=applicant)

    def takes(self, champion: ModelPackage, application: Application) -> bool:
        """Whether the challenger decides about the application, which is one of the champion's.

        It does not where the two take different applications: the champion was switched since.
        """
        if self.package.digests[_SCHEMA] != champion.digests[_SCHEMA]:
            return False
        key = challenges.key_of(application) if self.applicant is None else self.applicant
        return challenges.takes(self.challenge, key)

    def mark(self, *, decided: bool) -> dict[str, str]:
        """What the record of a decision says of it: who decided, or that it failed to."""
        return {"challenge" if decided else "challenge_failed": self.challenge.id}
