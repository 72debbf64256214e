"""Findings: what a verification has to say, for people and as JSON."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from credit_risk.audit.records import moment

if TYPE_CHECKING:
    from credit_risk.audit.queue import Difference

Kind = Literal[
    "changed",
    "removed",
    "inserted",
    "reordered",
    "emptied",
    "erased",
    "sealed",
    "restored",
    "unfounded",
    "rewritten",
    "head",
    "checkpoint",
    "anchor",
    "database",
]
"""What was found: records changed, removed, inserted or reordered; emptied by no retention on
record, or their data key by no erasure on record; sealed data that do not open; what a retention
or an erasure on record took, and is there again; such a record that the log gives the lie, or an
acknowledgement that nobody signed; records that are not those a checkpoint was signed for; the head
of the chain, a checkpoint or an anchor at fault; the file of the database damaged, or an index in
it that says otherwise than its table, so that who looks something up is told what is not so."""

FINDINGS_KEPT = 1_000


class Finding(NamedTuple):
    """One thing that is not as it was written.

    ``first`` and ``last`` are places in the chain, of checkpoints their numbers; ``id`` is of the
    record, where it is one.
    """

    kind: Kind
    first: int | None
    last: int | None
    id: str | None
    detail: str

    def __str__(self) -> str:
        """A line for people."""
        if self.first is None:
            return f"{self.kind}: {self.detail}"
        what = "checkpoint" if self.kind == "checkpoint" else "record"
        many = self.first != self.last
        where = f"{what}s {self.first} to {self.last}" if many else f"{what} {self.first}"
        return f"{self.kind}: {where}{f' ({self.id})' if self.id else ''}: {self.detail}"


@dataclass
class Report:
    """What a verification came to."""

    log: str | None = None
    records: int = 0
    taken: int = 0
    """Records of which retention has left the hash alone."""
    erased: int = 0
    """Records whose data key was destroyed."""
    opened: int | None = None
    """Records whose sealed data were opened; None if that was not asked for."""
    unopened: Counter[str] = field(default_factory=Counter)
    """Records that were to be opened and whose key is not here, by the name of that key."""
    checkpoints: int = 0
    covered: int = 0
    """Place of the last record under a checkpoint that is sound."""
    uncovered_since: int | None = None
    """Time of the first record behind it, microseconds since the epoch."""
    keys: list[str] = field(default_factory=list)
    """Ids of the public keys that count; with none, no signature was checked."""
    anchors: int = 0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)
    queue: list[Difference] = field(default_factory=list)
    """Cases of which the queue of reviews says otherwise than the chain; nothing of the chain's."""
    misqueued: int = 0
    """How many there are."""
    outcomes: list[Difference] = field(default_factory=list)
    """Decisions of whose outcomes the table says otherwise than the chain."""
    misrecorded: int | None = None
    """How many there are; None if nobody looked, for want of the keys."""
    clocks: list[str] = field(default_factory=list)
    """Times on record that cannot be right, though they are as they were written."""
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether nothing was found in what was looked at."""
        return not self.found

    def add(self, finding: Finding) -> None:
        """Something was found."""
        self.found += 1
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append(finding)

    def add_difference(self, difference: Difference) -> None:
        """The queue says otherwise than the chain."""
        self.misqueued += 1
        if len(self.queue) < FINDINGS_KEPT:
            self.queue.append(difference)

    def add_outcome(self, difference: Difference) -> None:
        """The table of outcomes says otherwise than the chain."""
        self.misrecorded = (self.misrecorded or 0) + 1
        if len(self.outcomes) < FINDINGS_KEPT:
            self.outcomes.append(difference)

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object."""
        since = self.uncovered_since
        return {
            "whole": self.whole,
            "log": self.log,
            "records": self.records,
            "taken_by_retention": self.taken,
            "erased": self.erased,
            "opened": self.opened,
            "unopened": dict(sorted(self.unopened.items())),
            "checkpoints": self.checkpoints,
            "covered": self.covered,
            "uncovered_since": None if since is None else moment(since),
            "trusted_keys": self.keys,
            "signatures_checked": bool(self.keys),
            "anchors": self.anchors,
            "found": self.found,
            "findings": [finding._asdict() for finding in self.findings],
            "queue": {
                "differences": self.misqueued,
                "cases": [difference._asdict() for difference in self.queue],
            },
            "outcomes": {
                "differences": self.misrecorded,
                "rows": [difference._asdict() for difference in self.outcomes],
            },
            "clocks": self.clocks,
            "notes": self.notes,
        }
