"""What the records show of a package: who approved it, what it decided, whether that holds."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from credit_risk.audit.records import NO_TIME, moment, pages
from credit_risk.audit.tables import HEAD, RECORDS
from credit_risk.evidence.topics import UNRECORDED, Rests, Topic, digest_of, manifest_of
from credit_risk.replay import Candidate, Comparison

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from credit_risk.audit.findings import Report
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import Filters, RecordKind
    from credit_risk.package import ModelPackage

_CHUNK = 10_000
_CASES_NAMED = 20
"""Of those of which the queue of reviews says otherwise than the records."""
_C = RECORDS.c


def approvals(package: ModelPackage, records: SqlRecords | None) -> Topic:
    """Who has signed the package, by the records of it; whose the keys are is not asked."""
    if records is None:
        return Topic(missing=UNRECORDED)
    mine: Filters = {
        "portfolio": package.portfolio,
        "model_version": package.version,
        "kind": "approval",
    }
    there = list(chain.from_iterable(pages(records, **mine)))
    names = ("approver", "key_id", "package_sha256")
    found = [r for r in there if r.body.get("package_sha256") == package.digest]
    topic = Topic(
        findings=[
            f"Record {record.id} of an approval: "
            f"{record.altered or 'it does not say what a server writes there'}."
            for record in there
            if record.altered is not None or not record.body.keys() >= set(names)
        ]
    )
    if not found:
        topic.missing = (
            "Nobody has approved the package; the activation history names who activated it."
        )
        return topic
    hashes = _hashes(records, [record.id for record in found])
    rows = [
        [moment(r.time), r.body.get("approver"), r.body.get("key_id"), r.id, hashes[r.id].hex()]
        for r in reversed(found)
    ]
    topic.tables.append((["time", "approver", "key", "record", "hash"], rows))
    topic.say(
        Rests("the records of these approvals, the newest first", digest_of(hashes.values())),
        f"Approvals of the package, each with its signature on record: {len(found)}.",
    )
    return topic


def activations(package: ModelPackage, records: SqlRecords | None) -> Topic:
    """When it was made to decide, by whom, and when workers started with it."""
    if records is None:
        return Topic(missing=UNRECORDED)
    there = list(
        chain.from_iterable(pages(records, portfolio=package.portfolio, kind="activation"))
    )
    names = ("action", "from", "to", "by")
    found = [r for r in there if package.version in (r.body.get("from"), r.body.get("to"))]
    topic = Topic(
        findings=[
            f"Record {record.id} of an activation: "
            f"{record.altered or 'it does not say what a server writes there'}."
            for record in there
            if record.altered is not None or not record.body.keys() >= set(names)
        ]
    )
    started = _started(package, records)
    if not found and started is None:
        topic.missing = "The package was never activated, and no server has started with it."
        return topic
    if started is not None:
        rests, *times = started
        topic.say(rests, "Workers started with it {:,} times, from {} to {}.".format(*times))
        if not found:
            topic.say(
                rests,
                "Nobody activated it: it decides since the first of these starts, as the package "
                "that the portfolio ships as its default, or that a server's MODEL_VERSION names.",
            )
    if found:
        hashes = _hashes(records, [record.id for record in found])
        rows = [
            [moment(r.time), *(r.body.get(name) for name in names), r.id, hashes[r.id].hex()]
            for r in reversed(found)
        ]
        topic.tables.append((["time", *names, "record", "hash"], rows))
        topic.say(
            Rests("the records of these activations, the newest first", digest_of(hashes.values())),
            f"Activations of the package, or of another in its place: {len(found)}.",
        )
    return topic


def _started(package: ModelPackage, records: SqlRecords) -> tuple[Rests, int, str, str] | None:
    """The records of starts with the package: their digest and number, the first and the last."""
    starts = (
        sa.select(_C.hash, _C.time)
        .where(
            _C.portfolio == package.portfolio,
            _C.model_version == package.version,
            _C.kind == "start",
        )
        .order_by(_C.sequence)
    )
    with records.reading() as connection:
        found = connection.execute(starts).all()
    if not found:
        return None
    times = [row.time for row in found if isinstance(row.time, int)] or [NO_TIME]
    rests = Rests(
        f"{len(found):,} records of starts, in the order of recording",
        digest_of(bytes(row.hash) for row in found),
    )
    return rests, len(found), moment(min(times)), moment(max(times))


def decisions(package: ModelPackage, records: SqlRecords | None) -> Topic:
    """How many decisions it has made, by policy and decision."""
    if records is None:
        return Topic(missing=UNRECORDED)
    counted = (
        sa.select(_C.decision, _C.policy_version, sa.func.count(), sa.func.min(_C.time))
        .add_columns(sa.func.max(_C.time))
        .where(*made_by(package))
        .group_by(_C.decision, _C.policy_version)
        .order_by(_C.policy_version, _C.decision)
    )
    hashes = sa.select(_C.hash).where(*made_by(package)).order_by(_C.sequence)
    with records.reading() as connection:
        groups = connection.execute(counted).all()
        streamed = connection.execution_options(yield_per=_CHUNK).execute(hashes).scalars()
        digest = digest_of(bytes(one) for one in streamed)
    total = sum(number for _, _, number, _, _ in groups)
    if not total:
        return Topic(missing="The package has made no decision that is on record.")
    topic = Topic()
    approved = sum(number for decision, _, number, _, _ in groups if decision == "APPROVE")
    times = [time for g in groups for time in g[3:] if isinstance(time, int)] or [NO_TIME]
    first, last = min(times), max(times)
    topic.say(
        Rests(f"{total:,} records of decisions, in the order of recording", digest),
        f"{total:,} decisions from {moment(first)} to {moment(last)}; {approved / total:.1%} "
        "were approvals.",
    )
    topic.figures |= {"decisions on record": f"{total:,}", "approved": f"{approved / total:.1%}"}
    topic.tables.append(
        (
            ["policy", "decision", "number", "share"],
            [
                [policy, decision, f"{number:,}", f"{number / total:.1%}"]
                for decision, policy, number, _, _ in groups
            ],
        )
    )
    return topic


def reviews(
    package: ModelPackage, records: SqlRecords | None, found: Mapping[str, Any] | str | None
) -> Topic:
    """What people made of its decisions.

    ``found`` are the counts of reviews, or in words why they cannot be counted.
    """
    if records is None or found is None:
        return Topic(missing=UNRECORDED)
    if isinstance(found, str):
        told = f"The reviews cannot be counted: {found}."
        return Topic(missing=told, findings=[told])
    steps = sa.select(_C.hash).where(*made_by(package, "review")).order_by(_C.sequence)
    with records.reading() as connection:
        hashes = [bytes(one) for one in connection.execute(steps).scalars()]
    waiting = found["waiting_now"]
    if not hashes and not waiting:
        return Topic(missing="No decision of the package was reviewed, and none waits for it.")
    numbers = found["reviews"]
    topic = Topic(figures={"reviews closed": f"{numbers['closed']:,}"})
    topic.say(
        Rests(
            f"{len(hashes):,} records of reviews of the package's decisions, in the order of "
            "recording",
            digest_of(hashes),
        ),
        f"Reviews closed: {numbers['closed']:,}, of which {numbers['approved']:,} approved and "
        f"{numbers['declined']:,} declined. Waiting for a person now: {waiting:,}.",
        f"Decisions proposed to a second person: {numbers['proposed']:,}; not agreed to: "
        f"{numbers['returned']:,}.",
    )
    if found["overrides"]:
        names = ["override", "the server said", "number", "of", "share", "reasons"]
        topic.tables.append((names, [_override(one) for one in found["overrides"]]))
    return topic


def _override(found: Mapping[str, Any]) -> list[str]:
    """A row of how often people overrode a decision of the server in one direction."""
    return [
        found["direction"],
        found["decision"],
        f"{found['number']:,}",
        f"{found['of']:,}",
        "" if found["rate"] is None else f"{found['rate']:.2%}",
        ", ".join(f"{code} {number:,}" for code, number in found["reasons"].items()),
    ]


def integrity(records: SqlRecords | None, found: Report | None) -> Topic:
    """Whether the records are as they were written, and what was not checked."""
    if records is None:
        return Topic(missing=UNRECORDED)
    if found is None:
        return Topic(missing="The records were not verified for this pack.")
    said = [
        f"Verified: {found.records:,} records and {found.checkpoints:,} checkpoints, "
        + (
            f"with the key {', '.join(found.keys)}. "
            if found.keys
            else "their signatures NOT, for no signing key is set here. "
        )
        + ("All are as they were written." if found.whole else "They are NOT as they were written:")
    ]
    said += [str(finding) for finding in found.findings]
    said.append(
        f"Under a checkpoint: the first {found.covered:,} records. Taken by retention: "
        f"{found.taken:,}. Personal data erased of: {found.erased:,}."
    )
    with records.reading() as connection:
        heads = connection.execute(sa.select(HEAD.c.log, HEAD.c.sequence, HEAD.c.hash)).all()
    topic = Topic(figures={"records verified": f"{found.records:,}"})
    if not found.whole:
        more = f"; and {found.found - 1:,} more" if found.found > 1 else ""
        topic.findings.append(
            f"The records are not as they were written: {found.findings[0]}{more}."
        )
    if found.clocks:
        said += [f"Clocks: {told}." for told in found.clocks]
        topic.findings.append(f"Times on record cannot be right: {found.clocks[0]}.")
    if found.misqueued:
        said += [f"Queue of reviews: {difference}." for difference in found.queue[:_CASES_NAMED]]
        topic.findings.append(
            f"The queue of reviews is not what the records say, in {found.misqueued:,} cases."
        )
    if found.misrecorded:
        said += [f"Outcomes: {difference}." for difference in found.outcomes[:_CASES_NAMED]]
        topic.findings.append(
            "The table of outcomes is not what the records say, of "
            f"{found.misrecorded:,} decisions."
        )
    told = [f"the head of chain {log}, record {sequence}" for log, sequence, _ in heads]
    topic.say(
        Rests(
            " and ".join(told) or "a chain without a head",
            digest_of(head for *_, head in heads)
            if len(heads) != 1
            else bytes(heads[0].hash).hex(),
        ),
        *said,
        *(f"Note: {note}." for note in found.notes),
    )
    return topic


def replays(package: ModelPackage, found: Comparison | None) -> Topic:
    """Whether its decisions come out again."""
    if found is None or not found.records:
        return Topic(missing="No decision of the package was made again for this pack.")
    topic = Topic()
    verdicts = ", ".join(f"{name} {number:,}" for name, number in found.verdicts.items() if number)
    topic.say(
        manifest_of(package),
        f"The newest {found.records:,} decisions on record were made again from the package, "
        f"policy and reference group that they name: {verdicts}.",
    )
    topic.figures["came out again"] = f"{found.verdicts['MATCH']:,} of {found.records:,}"
    topic.say(
        manifest_of(package),
        *(
            f"{cause}: {number:,}, such as: {found.examples[cause]}."
            for cause, number in sorted(found.causes.items())
        ),
    )
    if not found.as_expected(Candidate()):
        otherwise = found.records - found.verdicts["MATCH"] - found.causes["input-erased"]
        topic.findings.append(
            f"Of the newest {found.records:,} decisions made again, {otherwise:,} did not come "
            "out as they are on record."
        )
    return topic


def _hashes(records: SqlRecords, ids: Sequence[str]) -> dict[str, bytes]:
    """The hashes of records by their ids, in the order of these."""
    with records.reading() as connection:
        found = {
            record_id: bytes(digest)
            for start in range(0, len(ids), 500)
            for record_id, digest in connection.execute(
                sa.select(_C.id, _C.hash).where(_C.id.in_(ids[start : start + 500]))
            )
        }
    return {record_id: found[record_id] for record_id in ids}


def made_by(package: ModelPackage, kind: RecordKind = "decision") -> list[sa.ColumnElement[bool]]:
    """What the records of a kind fulfil that a package has made."""
    return [
        _C.portfolio == package.portfolio,
        _C.model_version == package.version,
        _C.kind == kind,
    ]
