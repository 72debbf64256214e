"""Replay: recorded decisions made again, from the package, policy and reference group they name.

A replay ends in a verdict:

========================  ======================================================================
``MATCH``                 the answer on record comes out again
``MODEL_CHANGED``         another package gives another answer
``POLICY_CHANGED``        another policy gives another answer
``ENVIRONMENT_CHANGED``   the same package and policy give another answer here: libraries differ,
                          or the record is not what was answered
``NOT_REPRODUCIBLE``      it cannot be made again: the input is gone, the package is not here, is
                          altered, or is not the one recorded
========================  ======================================================================

Against a `Candidate` the same is asked of a policy or a package that did not decide: which
decisions would have come out otherwise. What differs is compared by `differences`; which of the
things that may differ is to blame is decided by digests alone, so that a verdict can be checked.

Replaying changes nothing and records nothing: whoever doubts a replay makes it again.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha256
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from credit_risk import documents, environment, scoring
from credit_risk.audit.records import pages, read
from credit_risk.decisions import evidence
from credit_risk.errors import (
    ApplicationInvalid,
    ExplanationFailed,
    NotADecision,
    PackageInvalid,
    PackageNotFound,
    PortfolioInvalid,
)
from credit_risk.manifest import versioned
from credit_risk.policy import BAND_ORDER, DECISIONS, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from credit_risk.audit.records import Record, Records, Withheld
    from credit_risk.package import ModelPackage
    from credit_risk.portfolio import Portfolio
    from credit_risk.schema import Application
    from credit_risk.scoring import Decision

    Load: TypeAlias = Callable[[str, str], ModelPackage]
    """Loads and checks the package of a portfolio and version; see `replay`."""
    Listings: TypeAlias = Callable[[str, str], Mapping[str, str] | None]
    """The listing of a portfolio's environment of that digest, where it is on record."""

Verdict = Literal[
    "MATCH", "MODEL_CHANGED", "POLICY_CHANGED", "ENVIRONMENT_CHANGED", "NOT_REPRODUCIBLE"
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Cause = Literal[
    "input-erased",
    "input-sealed",
    "input-invalid",
    "record-invalid",
    "package-missing",
    "package-invalid",
    "package-differs",
    "policy-unfit",
    "unexplained",
]
"""Why something is ``NOT_REPRODUCIBLE``; only the first is nobody's fault."""

Otherwise = Literal["decision", "band", "reasons", "rest"]
"""What came out otherwise, by what it means to an applicant: another decision; the same one in
another band; the same decision and band for other reasons; the same but for score, rules or
prediction."""
_OTHERWISE: dict[Otherwise, str] = {
    "decision": "decision",
    "band": "risk_band",
    "reasons": "reasons",
}

PAGE_RECORDS = 1_000
"""Records read and scored at a time: some 10 MB while they are."""

SCORE_TOLERANCE = 1e-12
"""Largest relative difference of PD and log-odds that is none.

On one machine a replay has the same bits. Elsewhere the last ones may differ by how a processor
rounds sums and exponentials, which is a few times 1e-16 of a number. This is a thousand times as
much, and a millionth of what a golden record may be off (`credit_risk.package.GOLDEN_TOLERANCE`).
"""
CONTRIBUTION_TOLERANCE = 1e-9
"""The same for a reason's contribution, absolute, log-odds: a sum of thousands of terms."""

_DIGESTS = ("package_sha256", "schema_sha256", "reasons_sha256", "reference_sha256")
_POLICY = "policy_sha256"
_SCORE = ("probability_of_default", "log_odds")
_BY_POLICY = ("decision", "risk_band", "prediction", "scored_decision", "rules")
_REASONS = "reasons"


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that came out otherwise, by its name on record."""

    field: str
    recorded: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to decide instead of what did; what is None is as recorded.

    A package brings its own policy along, unless one is given. ``policy_sha256`` is of the
    policy's file.
    """

    package: ModelPackage | None = None
    policy: Policy | None = None
    policy_sha256: str = ""

    def __bool__(self) -> bool:
        return self.package is not None or self.policy is not None

    def to_json(self) -> dict[str, Any]:
        """Versions and digests of what decides instead; null where it is as recorded."""
        package, policy = self.package, self.policy
        version = digest = None
        if policy is not None:
            version, digest = versioned(policy.version, self.policy_sha256), self.policy_sha256
        elif package is not None:
            version, digest = package.policy_version, package.digests["policy.yaml"]
        return {
            "model_version": None if package is None else package.version,
            "package_sha256": None if package is None else package.digest,
            "policy_version": version,
            "policy_sha256": digest,
        }


@dataclass(frozen=True, slots=True)
class Replay:
    """What became of one record.

    ``recorded`` and ``replayed`` hold versions, digests and answers by their names on record;
    ``replayed`` is None where nothing could be decided. ``libraries`` are the entries of the
    environment that differ, each as recorded and as here, where that may explain the verdict.
    """

    record: Record
    verdict: Verdict
    detail: str
    recorded: dict[str, Any]
    replayed: dict[str, Any] | None = None
    differences: tuple[Difference, ...] = ()
    cause: Cause | None = None
    libraries: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)

    @property
    def otherwise(self) -> Otherwise | None:
        """The first of these things that came out otherwise; None where nothing did, or could."""
        if self.replayed is None or not self.differences:
            return None
        fields = {difference.field for difference in self.differences}
        return next((name for name, of in _OTHERWISE.items() if of in fields), "rest")

    @property
    def changed(self) -> tuple[str, str] | None:
        """The decision on record and the one made now, where they are not the same."""
        if self.replayed is None or self.recorded["decision"] == self.replayed["decision"]:
            return None
        return self.recorded["decision"], self.replayed["decision"]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; nothing of the applicant is in it."""
        return {
            "decision_id": self.record.id,
            "verdict": self.verdict,
            "detail": self.detail,
            "cause": self.cause,
            "differences": [
                {"field": d.field, "recorded": d.recorded, "replayed": d.replayed}
                for d in self.differences
            ],
            "libraries": {
                name: {"recorded": recorded, "here": here}
                for name, (recorded, here) in self.libraries.items()
            },
            "recorded": self.recorded,
            "replayed": self.replayed,
        }


@dataclass(frozen=True, slots=True)
class _Obstacle:
    """Why something cannot be made again."""

    cause: Cause
    detail: str


_WITHHELD: dict[Withheld, _Obstacle] = {
    "erased": _Obstacle("input-erased", "the application was erased"),
    "sealed": _Obstacle("input-sealed", "the application is sealed with a key that is not here"),
}
_UNANSWERED = _Obstacle("record-invalid", "the record does not hold a decision and its answer")


def replay(
    records: Sequence[Record],
    load: Load,
    *,
    candidate: Candidate | None = None,
    listings: Listings = lambda _portfolio, _digest: None,
) -> list[Replay]:
    """Make recorded decisions again, those of one package together.

    Args:
        records: of kind ``decision``.
        load: gives the package of a portfolio and version, its sums verified and its golden
            records answered; raises `PackageNotFound`, `PackageInvalid` or `ExplanationFailed`
            where it cannot. It is called once for each version among the records.
        candidate: decides instead.
        listings: finds what an environment was.

    Returns:
        One replay for each record, in order.
    """
    candidate = candidate or Candidate()
    groups: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for place, record in enumerate(records):
        groups[record.portfolio, record.model_version].append(place)
    made: dict[int, Replay] = {}
    for (portfolio, version), places in groups.items():
        package = _package(portfolio, version, load, candidate)
        some = [records[place] for place in places]
        if isinstance(package, _Obstacle):
            replays = [_impossible(record, _obstacle(record) or package) for record in some]
        else:
            replays = [
                _impossible(record, result)
                if isinstance(result, _Obstacle)
                else _compared(record, package, result, candidate, listings)
                for record, result in zip(some, _decide(some, package), strict=True)
            ]
        made.update(zip(places, replays, strict=True))
    return [made[place] for place in range(len(records))]


def _obstacle(record: Record) -> _Obstacle | None:
    """What hinders a replay in the record itself."""
    if record.altered is not None:
        return _Obstacle("record-invalid", record.altered)
    if record.withheld is not None:
        return _WITHHELD[record.withheld]
    answered = record.body.get("risk_band") in BAND_ORDER and record.decision in DECISIONS
    if not answered or not isinstance(record.body.get("probability_of_default"), float):
        return _UNANSWERED
    return None


def _package(
    portfolio: str, version: str | None, load: Load, candidate: Candidate
) -> ModelPackage | _Obstacle:
    """What is to decide about the records of one version."""
    package = candidate.package
    if package is None:
        try:
            package = load(portfolio, version or "")
        except PackageNotFound as error:
            return _Obstacle("package-missing", str(error))
        except (PackageInvalid, ExplanationFailed) as error:
            return _Obstacle("package-invalid", str(error))
    if candidate.policy is None:
        return package
    try:
        candidate.policy.check(package.schema)
        # A text that the policy has no use for any more does no harm.
        package.reasons.check_codes(package.schema, candidate.policy)
    except PortfolioInvalid as error:
        return _Obstacle("policy-unfit", f"the policy does not fit {package.version}: {error}")
    # The digest stays that of the package whose model decides: only the policy is another one.
    digests = package.digests | {"policy.yaml": candidate.policy_sha256}
    return replace(package, policy=candidate.policy, digests=digests)


def _decide(records: Sequence[Record], package: ModelPackage) -> list[Decision | _Obstacle]:
    """A decision about each record's application, or why there is none."""
    results: dict[int, Decision | _Obstacle] = {}
    valid: dict[int, Application] = {}
    for place, record in enumerate(records):
        obstacle = _obstacle(record)
        if obstacle is not None:
            results[place] = obstacle
            continue
        try:
            valid[place] = package.schema.validate_application(record.input)
        except ApplicationInvalid as error:
            detail = f"the application does not satisfy the schema of {package.version}: {error}"
            results[place] = _Obstacle("input-invalid", detail)
    results |= dict(zip(valid, _each(package, list(valid.values())), strict=True))
    return [results[place] for place in range(len(records))]


def _each(package: ModelPackage, applications: Sequence[Application]) -> list[Decision | _Obstacle]:
    """`scoring.decide`, but what cannot be explained spoils no other."""
    try:
        return [*scoring.decide(package, applications)]
    except ExplanationFailed as error:
        if len(applications) == 1:
            return [_Obstacle("unexplained", str(error))]
    half = len(applications) // 2
    return _each(package, applications[:half]) + _each(package, applications[half:])


def _recorded(record: Record) -> dict[str, Any]:
    names = (*_DIGESTS, _POLICY, "environment_sha256", *_SCORE, *_BY_POLICY, _REASONS)
    return {
        "model_version": record.model_version,
        "policy_version": record.policy_version,
        **{name: record.body.get(name) for name in names},
        "decision": record.decision,
    }


def _impossible(record: Record, obstacle: _Obstacle) -> Replay:
    recorded = _recorded(record)
    return Replay(record, "NOT_REPRODUCIBLE", obstacle.detail, recorded, cause=obstacle.cause)


def _compared(
    record: Record,
    package: ModelPackage,
    decision: Decision,
    candidate: Candidate,
    listings: Listings,
) -> Replay:
    recorded = _recorded(record)
    replayed = {
        "model_version": package.version,
        "policy_version": package.policy_version,
        **evidence(package, decision),
        "decision": decision.outcome.decision,
    }
    found = differences(recorded, replayed)
    verdict = _verdict(recorded, replayed, {difference.field for difference in found})
    others = [name for name in (*_DIGESTS, _POLICY) if recorded[name] != replayed[name]]
    if verdict == "MATCH" and others and not candidate:
        detail = (
            f"package {package.version} gives the recorded answer, but is not the one recorded: "
            f"{', '.join(others)} differ"
        )
        return Replay(
            record, "NOT_REPRODUCIBLE", detail, recorded, replayed, cause="package-differs"
        )
    if verdict != "ENVIRONMENT_CHANGED":
        return Replay(record, verdict, _DETAILS[verdict], recorded, replayed, found)
    detail, libraries = _environment(record.portfolio, recorded["environment_sha256"], listings)
    return Replay(record, verdict, detail, recorded, replayed, found, libraries=libraries)


_DETAILS = {
    "MATCH": "the recorded answer comes out again",
    "MODEL_CHANGED": "another package gives another answer",
    "POLICY_CHANGED": "another policy gives another answer",
}


def _environment(
    portfolio: str, digest: str | None, listings: Listings
) -> tuple[str, dict[str, tuple[str | None, str | None]]]:
    """What to say where the same package gives another answer, and what differs."""
    here = environment.here()
    same = "the same package and policy give another answer"
    if digest == here.sha256:
        return f"{same} although the environment is the same: the record may be altered", {}
    listing = None if digest is None else listings(portfolio, digest)
    if listing is None:
        return f"{same} here; what the environment was is not on record", {}
    libraries = environment.differences(listing, here.listing)
    return f"{same} here, where {', '.join(libraries)} differ", libraries


def _verdict(recorded: Mapping[str, Any], replayed: Mapping[str, Any], found: set[str]) -> Verdict:
    """Who is to blame for what came out otherwise, by digests."""
    if not found:
        return "MATCH"
    package = any(recorded[name] != replayed[name] for name in _DIGESTS)
    policy = recorded[_POLICY] != replayed[_POLICY]
    # No policy changes a score.
    if not found.isdisjoint(_SCORE):
        return "MODEL_CHANGED" if package else "ENVIRONMENT_CHANGED"
    # Another package may bring another policy along, and its reasons may be its model's own.
    if policy and not (package and found.isdisjoint(_BY_POLICY)):
        return "POLICY_CHANGED"
    return "MODEL_CHANGED" if package else "ENVIRONMENT_CHANGED"


def differences(recorded: Mapping[str, Any], replayed: Mapping[str, Any]) -> tuple[Difference, ...]:
    """What differs between two answers, each by its names on record.

    Scores are compared to `SCORE_TOLERANCE`, contributions to `CONTRIBUTION_TOLERANCE`, and
    everything else, the order of rules and reasons included, must be the same.
    """
    same = {
        "probability_of_default": _close(recorded, replayed, "probability_of_default", 0.0),
        # Its terms may cancel out, so that what rounding does to them is nothing beside 1.
        "log_odds": _close(recorded, replayed, "log_odds", SCORE_TOLERANCE),
        **{name: recorded[name] == replayed[name] for name in _BY_POLICY},
        _REASONS: _same_reasons(recorded[_REASONS], replayed[_REASONS]),
    }
    return tuple(
        Difference(name, recorded[name], replayed[name])
        for name, is_same in same.items()
        if not is_same
    )


def _close(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any], name: str, absolute: float
) -> bool:
    before, now = recorded[name], replayed[name]
    return isinstance(before, (int, float)) and math.isclose(
        before, now, rel_tol=SCORE_TOLERANCE, abs_tol=absolute
    )


def _same_reasons(recorded: object, replayed: list[dict[str, Any]]) -> bool:
    return (
        isinstance(recorded, list)
        and len(recorded) == len(replayed)
        and all(_same_reason(was, now) for was, now in zip(recorded, replayed, strict=True))
    )


def _same_reason(recorded: object, replayed: dict[str, Any]) -> bool:
    if not isinstance(recorded, dict):
        return False
    was, now = recorded.get("contribution"), replayed["contribution"]
    if isinstance(was, float) and now is not None:
        if abs(was - now) > CONTRIBUTION_TOLERANCE:
            return False
        was = now
    return {**recorded, "contribution": was} == replayed


def listings_of(records: Records) -> Listings:
    """Finds what environments were among the records of starts, each once."""

    @cache
    def find(portfolio: str, digest: str) -> Mapping[str, str] | None:
        for record in chain.from_iterable(pages(records, portfolio=portfolio, kind="start")):
            # What is altered has no body, and tells nothing.
            if record.body.get("environment_sha256") == digest:
                with read(record.id, record.kind):
                    listing: dict[str, str] = record.body["environment"]
                return listing
        return None

    return find


def decision_of(records: Records, record_id: str) -> Record:
    """The record of a decision.

    Raises:
        RecordNotFound: no record has that id.
        NotADecision: it is of another kind.
    """
    record = records.get(record_id)
    if record.kind != "decision":
        msg = f"record {record_id} is of a {record.kind}, and only a decision can be replayed"
        raise NotADecision(msg)
    return record


def read_policy(path: Path, portfolio: Portfolio) -> Candidate:
    """A policy's file as a candidate for a portfolio.

    Raises:
        PortfolioInvalid: it is not a policy, is another portfolio's, or does not fit its schema
            and reasons.
    """
    policy = documents.read(Policy, path)
    if policy.portfolio != portfolio.schema.portfolio:
        msg = f"{path}: it belongs to portfolio {policy.portfolio!r}"
        raise PortfolioInvalid(msg)
    policy.check(portfolio.schema)
    portfolio.reasons.check_codes(portfolio.schema, policy)
    return Candidate(policy=policy, policy_sha256=sha256(path.read_bytes()).hexdigest())


class Answers:
    """Decisions counted, as they were or as they would have been."""

    def __init__(self) -> None:
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._pds: dict[str, float] = defaultdict(float)

    def add(self, answer: Mapping[str, Any]) -> None:
        """Count one, by its names on record."""
        self._numbers[answer["risk_band"], answer["decision"]] += 1
        self._pds[answer["risk_band"]] += answer["probability_of_default"]

    def to_json(self) -> dict[str, Any]:
        """Numbers, approval rate and mean PD, of all and of each band; a rate of none is null."""
        return self._of(BAND_ORDER) | {
            "bands": {band: self._of((band,)) for band in BAND_ORDER},
        }

    def _of(self, bands: Sequence[str]) -> dict[str, Any]:
        by_decision = {d: sum(self._numbers[band, d] for band in bands) for d in DECISIONS}
        number = sum(by_decision.values())
        total = sum(self._pds[band] for band in bands)
        return {
            "decisions": number,
            "by_decision": by_decision,
            "approval_rate": by_decision["APPROVE"] / number if number else None,
            "mean_probability_of_default": total / number if number else None,
        }


class Comparison:
    """Many replays, added up; it grows with the number of things to say, not with theirs.

    Args:
        listed_most: name so many of the decisions that come out otherwise.
    """

    def __init__(self, listed_most: int = 0) -> None:
        self.records = 0
        self.verdicts: Counter[Verdict] = Counter()
        self.causes: Counter[Cause] = Counter()
        self.examples: dict[Cause, str] = {}
        self.otherwise: Counter[Otherwise] = Counter()
        self.changed: Counter[tuple[str, str]] = Counter()
        self.listed: list[Replay] = []
        self._listed_most = listed_most
        self._before, self._after = Answers(), Answers()

    def add(self, replay: Replay) -> None:
        """Add one."""
        self.records += 1
        self.verdicts[replay.verdict] += 1
        if replay.cause is not None:
            self.causes[replay.cause] += 1
            self.examples.setdefault(replay.cause, replay.detail)
        if replay.otherwise is not None:
            self.otherwise[replay.otherwise] += 1
        if replay.replayed is not None:
            self._before.add(replay.recorded)
            self._after.add(replay.replayed)
            self.changed[replay.recorded["decision"], replay.replayed["decision"]] += 1
        if replay.changed is not None and len(self.listed) < self._listed_most:
            self.listed.append(replay)

    def as_expected(self, candidate: Candidate) -> bool:
        """Whether every record could be made again, and changed by what a candidate changes alone.

        An application that is erased is nobody's fault.
        """
        if self.causes.total() > self.causes["input-erased"]:
            return False
        blamed: tuple[Verdict, ...] = ("ENVIRONMENT_CHANGED",)
        if not candidate:
            blamed = ("ENVIRONMENT_CHANGED", "MODEL_CHANGED", "POLICY_CHANGED")
        return not any(self.verdicts[verdict] for verdict in blamed)

    @property
    def swapped(self) -> dict[str, int]:
        """How many decisions would newly be each, the swap set."""
        return {
            to: sum(n for (before, now), n in self.changed.items() if now == to != before)
            for to in DECISIONS
        }

    def to_json(self) -> dict[str, Any]:
        """All of it.

        ``before`` and ``after`` are of the same decisions, those made again. ``otherwise`` counts
        each that came out otherwise once, by the first thing that did (see `Otherwise`), so that
        it adds up to the verdicts that are neither ``MATCH`` nor ``NOT_REPRODUCIBLE``; only its
        ``decision`` is in ``newly`` and ``changed``.
        """
        return {
            "records": self.records,
            "verdicts": {verdict: self.verdicts[verdict] for verdict in VERDICTS},
            "not_reproducible": {
                cause: {"records": number, "example": self.examples[cause]}
                for cause, number in sorted(self.causes.items())
            },
            "otherwise": {name: self.otherwise[name] for name in get_args(Otherwise)},
            "before": self._before.to_json(),
            "after": self._after.to_json(),
            "from_to": {
                before: {now: self.changed[before, now] for now in DECISIONS}
                for before in DECISIONS
            },
            "newly": self.swapped,
            "changed": [_change(replay) for replay in self.listed],
        }


def _change(replay: Replay) -> dict[str, Any]:
    """One decision of the swap set."""
    replayed = replay.replayed or {}
    names = ("decision", "risk_band", "probability_of_default")
    return {
        "decision_id": replay.record.id,
        "verdict": replay.verdict,
        "recorded": {name: replay.recorded[name] for name in names},
        "replayed": {name: replayed[name] for name in names},
    }
