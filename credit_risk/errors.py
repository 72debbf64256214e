"""Everything that can go wrong in the core, as one small tree.

::

    CreditRiskError
    ├── ApplicationInvalid     the applicant's data do not satisfy the portfolio's schema
    ├── DataInvalid            a data file lacks a column, or cannot be read
    ├── OutputRefused          a file would be overwritten, or was begun by another run
    ├── PortfolioInvalid       a portfolio's or a regime's file is wrong: nothing may start on it
    ├── PackageInvalid         a model package is incomplete, altered or gives other answers
    ├── ExplanationFailed      contributions do not add up, or a decline has no reason
    ├── RecordingFailed        the evidence could not be written, so there is no decision
    ├── EvidenceInvalid        what is on record is not what was recorded
    ├── KeysInvalid            a key for evidence is missing or malformed
    ├── Conflict               something else happened first, so nothing was recorded
    │   └── KeyInUse           another request with the same idempotency key is being decided
    ├── KeyReused              an idempotency key came again with another request
    ├── Overloaded             more is asked than can be done in time; nothing was begun
    ├── DeadlineExceeded       the decision was not ready in time, so there is none
    ├── NotADecision           a record that was asked about as a decision is of another kind
    ├── RequestInvalid         a call about a decision on record has a field or parameter wrong
    ├── ReviewRefused          the state of a decision's review does not allow this step
    ├── ApprovalRefused        somebody who may not, or has before, was to approve a package
    ├── NotAdverse             a notice was asked for of what is no adverse decision
    ├── NoticeImpossible       what a notice needs of the package that decided is not there
    ├── Unreachable            a server that made-up applications were to go to does not answer
    ├── MonitoringFailed       what was asked about a window of decisions could not be worked out
    ├── RegistryUnavailable    the model registry does not answer, or not as one
    ├── CannotServe            the port or the state directory is taken by another server
    └── NotFound               something is not there that was asked for by its name
        ├── FileNotFound           no data or pipeline file is there
        ├── PortfolioNotFound      no portfolio has that name
        ├── RegimeNotFound         no regime file has that name
        ├── ScenarioNotFound       no scenario of the portfolio has that name
        ├── PackageNotFound        no package of that version is installed or shipped
        └── RecordNotFound         no record has that id, or there are none at all
            └── RecordExpired      there was one, and retention has taken it

Transports map these to their own statuses in one table (see ``credit_risk.serving.problems``).
"""

from __future__ import annotations

from dataclasses import dataclass


class CreditRiskError(Exception):
    """Anything the core refuses to do or could not do."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with one place of an input; it never carries the value found there.

    ``pointer`` is a JSON pointer (RFC 6901) into the input, ``detail`` a sentence for people.
    """

    pointer: str
    detail: str


class ApplicationInvalid(CreditRiskError):
    """The applicant's data do not satisfy the schema; ``errors`` names every place."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{e.pointer or '/'}: {e.detail}" for e in errors))
        self.errors = errors


class DataInvalid(CreditRiskError):
    """A data file lacks a column the portfolio needs, or cannot be read."""


class OutputRefused(CreditRiskError):
    """A file to write exists already, or what was begun of it belongs to another run."""


class PortfolioInvalid(CreditRiskError):
    """A schema, policy, reasons, training or regime file is wrong."""


class PackageInvalid(CreditRiskError):
    """A model package is incomplete, altered, of an unknown format or gives other answers."""


class ExplanationFailed(CreditRiskError):
    """An explanation does not add up to the score, or a decline has no reason."""


class RecordingFailed(CreditRiskError):
    """A record could not be made durable."""


class EvidenceInvalid(CreditRiskError):
    """What is on record is not what was recorded."""


class KeysInvalid(CreditRiskError):
    """A key that evidence is sealed or signed with is missing or malformed."""


class Conflict(CreditRiskError):
    """Somebody else was first, or what is asked for does not fit what has happened."""


class KeyInUse(Conflict):
    """Another request with the idempotency key is in hand; its answer is worth asking for again."""


class KeyReused(CreditRiskError):
    """The idempotency key belongs to another request."""


class Overloaded(CreditRiskError):
    """Too much is waiting already; trying again after ``seconds`` is worth while."""

    def __init__(self, seconds: float) -> None:
        super().__init__("too many applications are waiting")
        self.seconds = seconds


class DeadlineExceeded(CreditRiskError):
    """A decision was not ready and on record in the time it had."""


class NotADecision(CreditRiskError):
    """A record is there, but it is none of a decision."""


class RequestInvalid(CreditRiskError):
    """A call about a decision on record is not as it should be; ``errors`` names every place."""

    def __init__(self, errors: tuple[FieldError, ...]) -> None:
        super().__init__("; ".join(f"{e.pointer or '/'}: {e.detail}" for e in errors))
        self.errors = errors


class ReviewRefused(CreditRiskError):
    """A step of a review that the state it is in does not allow."""


class ApprovalRefused(CreditRiskError):
    """The key is none of an approver's, or its owner has approved the package before."""


class NotAdverse(CreditRiskError):
    """There is no adverse decision, or none yet, to give notice of."""


class NoticeImpossible(CreditRiskError):
    """A notice's reasons cannot be given in the wording approved for the decision."""


class MonitoringFailed(CreditRiskError):
    """The process that works out what is asked about many decisions failed, or took too long."""


class RegistryUnavailable(CreditRiskError):
    """The model registry, or what it rests on, does not answer now, or not as it should."""


class CannotServe(CreditRiskError):
    """Another program has the port, or another server the state directory."""


class Unreachable(CreditRiskError):
    """Nothing answers at a URL, or no server of this kind."""


class NotFound(CreditRiskError):
    """Something asked for by its name is not there."""


class FileNotFound(NotFound):
    """There is no such data or pipeline file."""


class PortfolioNotFound(NotFound):
    """There is no portfolio of that name."""


class RegimeNotFound(NotFound):
    """There is no regime of that name."""


class ScenarioNotFound(NotFound):
    """The portfolio has no scenario of that name."""


class PackageNotFound(NotFound):
    """No package of the version asked for is installed or shipped."""


class RecordNotFound(NotFound):
    """No record has the id asked for, or nothing was recorded yet."""


class CountsOutdated(EvidenceInvalid):
    """Applicants were counted by another program, or against another profile: count them anew."""


class CheckNotFound(RecordNotFound):
    """The portfolio has no such check of whether to retrain."""


class RecordExpired(RecordNotFound):
    """Retention has taken the record asked for."""
