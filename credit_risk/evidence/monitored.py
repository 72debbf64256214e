"""What became of a package's decisions, and what the monitoring job found."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from credit_risk.audit.records import moment
from credit_risk.audit.tables import MONITORING_RESULTS, OUTCOMES, RECORDS
from credit_risk.evidence.recorded import made_by
from credit_risk.evidence.topics import UNRECORDED, Rests, Topic, digest_of, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credit_risk.audit.log import SqlRecords
    from credit_risk.package import ModelPackage

_UNWATCHED = "The monitoring job (python -m monitoring run) has put nothing of this on record."
_C = RECORDS.c
_O = OUTCOMES.c
_M = MONITORING_RESULTS.c


@dataclass(frozen=True, slots=True)
class _Watched:
    """What the monitoring job found last of one kind: its JSON, and what states it."""

    kind: str
    body: dict[str, Any]
    rests: Rests


def outcomes(package: ModelPackage, records: SqlRecords | None) -> Topic:
    """What became of its decisions, as recorded, and how right its PDs were."""
    if records is None:
        return Topic(missing=UNRECORDED)
    said = sa.select(_C.hash).where(*made_by(package, "outcome")).order_by(_C.sequence)
    of_package = (_O.portfolio == package.portfolio, _O.model_version == package.version)
    known = sa.select(
        sa.func.count(), sa.func.sum(_O.defaulted), sa.func.min(_O.observed)
    ).add_columns(sa.func.max(_O.observed))
    with records.reading() as connection:
        hashes = [bytes(one) for one in connection.execute(said).scalars()]
        number, defaults, first, last = connection.execute(known.where(*of_package)).one()
    if not number:
        return Topic(missing="No outcome of a decision of the package is on record.")
    topic = Topic(figures={"outcomes on record": f"{number:,}"})
    topic.say(
        Rests(
            f"{len(hashes):,} records of outcomes of the package's decisions, in the order of "
            "recording",
            digest_of(hashes),
        ),
        f"Outcomes known of {number:,} decisions, observed from {first} to {last}: "
        f"{defaults:,} defaulted, {defaults / number:.2%}.",
        f"Corrections on record: {len(hashes) - number:,}.",
    )
    for watched in _watched(package, records, "performance"):
        _say_performance(topic, watched)
    return topic


def drift(package: ModelPackage, records: SqlRecords | None) -> Topic:
    """Whether applicants are still those of its reference, and whether to retrain."""
    results = [] if records is None else _watched(package, records, "drift")
    if records is None or not results:
        return Topic(missing=UNRECORDED if records is None else _UNWATCHED)
    topic = Topic()
    for watched in results:
        body = watched.body
        topic.figures["drift of applicants"] = body["verdict"]
        topic.say(
            watched.rests,
            f"{body['rows']:,} applicants, compared with the package's reference: "
            f"{body['verdict']}. {body['recommendation']}",
        )
        compared = [*([] if body["score"] is None else [body["score"]]), *body["fields"]]
        rows = [
            [
                one["field"],
                one["verdict"],
                short(one["psi"]),
                "" if one["critical"] is None else short(one["critical"]),
                "" if one["p_corrected"] is None else short(one["p_corrected"]),
                f"{one['missing']['share']:.2%}",
            ]
            for one in compared
        ]
        heads = ["field", "verdict", "PSI", "by chance up to", "p, corrected", "missing"]
        topic.tables.append((heads, rows))
    for watched in _watched(package, records, "retraining"):
        said = f"Whether to retrain: {watched.body['verdict']}."
        topic.say(watched.rests, " ".join([said, *watched.body["reasons"]]))
    return topic


def fairness(package: ModelPackage, records: SqlRecords | None) -> Topic:
    """Approvals and scores by groups of applicants."""
    results = [] if records is None else _watched(package, records, "fairness")
    if records is None or not results:
        return Topic(missing=UNRECORDED if records is None else _UNWATCHED)
    topic = Topic()
    for watched in results:
        body = watched.body
        beside = body["not_enough"] or f"The others are held against {body['reference']}."
        topic.say(
            watched.rests,
            f"By {body['attribute']}: {body['rows']:,} decisions, {body['unknown']:,} of them "
            f"without a group. {beside}",
        )
        rows = [
            [
                group["name"],
                f"{group['rows']:,}",
                *(_interval(group[name]) for name in ("approval_rate", "ratio", "difference")),
            ]
            for group in body["groups"]
        ]
        heads = ["group", "decisions", "approval rate", "ratio", "standardised difference of PD"]
        topic.tables.append((heads, rows))
    return topic


def _say_performance(topic: Topic, watched: _Watched) -> None:
    body = watched.body
    figures, expected = body["figures"], body["expected"]
    topic.say(
        watched.rests,
        f"Of {body['accepted']:,} applications accepted, {body['coverage']:.1%} have an outcome; "
        f"{body['maturity']:.1%} had the whole outcome period.",
    )
    if figures is None:
        topic.say(watched.rests, f"No figures: {body['not_enough']}.")
    else:
        topic.tables.append(
            (
                ["figure", "observed", "low", "high", "if all PDs were true"],
                [
                    [
                        name,
                        *(short(observed[place]) for place in ("value", "low", "high")),
                        "" if expected is None else short(expected[name]["value"]),
                    ]
                    for name, observed in figures.items()
                ],
            )
        )
    topic.say(watched.rests, *body["caveats"])


def _watched(package: ModelPackage, records: SqlRecords, kind: str) -> list[_Watched]:
    """The results of one kind, or of each kind that begins with it and a colon, of the last window.

    Of windows that end together, the longest: the last days, and not today alone.
    """
    found = (
        sa.select(_M.kind, _M.time, _M.since, _M.until, _M.body)
        .where(_M.portfolio == package.portfolio, _M.model_version == package.version)
        .where(sa.or_(_M.kind == kind, _M.kind.startswith(f"{kind}:", autoescape=True)))
        .order_by(_M.kind, _M.until.desc(), _M.since)
    )
    newest: dict[str, _Watched] = {}
    with records.reading() as connection:
        for name, time, since, until, body in connection.execute(found):
            window = f"{moment(since)[:10]} to {moment(until)[:10]}"
            rests = Rests(
                f"what the monitoring job found at {moment(time)} of decisions from {window}",
                hashlib.sha256(body.encode()).hexdigest(),
            )
            newest.setdefault(name, _Watched(name, json.loads(body), rests))
    return list(newest.values())


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
