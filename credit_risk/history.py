"""What decided at some time, and what it came from, as records of activations and others say.

Times are those that the writers' clocks gave; of what is dated before a time the last one written
was in force, so that a clock which was wrong once has no say over what came after. Workers switch
within a moment of an activation, and a server whose ``MODEL_VERSION`` is set does not switch at
all; so the last decision before that time is told, too, whose record names the package that made
it.
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Any

from credit_risk.audit.records import every, moment, read, sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.audit.records import Record, RecordKind, Records

    Json = dict[str, Any]

SAID = ("action", "by", "from", "promotion", "signatures", "registry")
"""What of an activation's body is told, where it is there."""
_EVENTS: tuple[RecordKind, ...] = ("activation", "challenge", "promotion", "approval")


def at(records: Records, portfolio: str, time: int) -> Json:
    """What decided at a time, as JSON.

    ``decided`` is None where nothing is on record by then. Before any activation, a portfolio's
    shipped default decides: it is the package that the last server before then started with.

    Args:
        records: what is on record.
        portfolio: whose.
        time: microseconds since the epoch; what happened in that very instant counts.

    Raises:
        RecordingFailed: the record database cannot be read.
        EvidenceInvalid: a record that the answer rests on is not as it was written.
    """
    origin = _activated(records, portfolio, time) or _last(records, portfolio, "start", time)
    decision = _last(records, portfolio, "decision", time)
    return {
        "portfolio": portfolio,
        "at": moment(time),
        "decided": None if origin is None else _decided(records, origin, time),
        "challenge": _challenge(_last(records, portfolio, "challenge", time)),
        "last_decision": None
        if decision is None
        else {
            "id": decision.id,
            "time": moment(decision.time),
            "model_version": decision.model_version,
        },
    }


def events(records: Records, portfolio: str, limit: int) -> list[Json]:
    """Activations, challenges, promotions and approvals, the newest first, as JSON.

    Raises:
        RecordingFailed, EvidenceInvalid: see `at`.
    """
    found = [
        record
        for kind in _EVENTS
        for record in sound(records.find(portfolio=portfolio, kind=kind, limit=limit))
    ]
    found.sort(key=lambda record: (record.time, record.id), reverse=True)
    return [_event(record) for record in found[:limit]]


def _last(records: Records, portfolio: str, kind: RecordKind, time: int) -> Record | None:
    """The last record of that kind up to that time."""
    # Of decisions and starts there are many, each by a clock of its own; the rest is in force.
    written = kind == "challenge"
    found = records.find(portfolio=portfolio, kind=kind, until=time + 1, limit=1, written=written)
    return next(sound(found), None)


def _activated(records: Records, portfolio: str, time: int) -> Record | None:
    """The activation by which the package decided that did then, None before any.

    One that changed nothing, as when an alias of the registry is followed to what decides already,
    is not where it came from.
    """
    found = None
    for record in every(
        records, portfolio=portfolio, kind="activation", until=time + 1, written=True
    ):
        found = record
        with read(record.id, record.kind):
            if record.body["from"] != record.body["to"]:
                break
    return found


def _decided(records: Records, origin: Record, time: int) -> Json:
    """The package of an activation, or of a start before there was any."""
    version = origin.model_version
    by_activation = origin.kind == "activation"
    with read(origin.id, origin.kind):
        told = {name: origin.body.get(name) for name in SAID} if by_activation else {}
        sha256 = origin.body["package_sha256"]
    promotion = told.get("promotion")
    until = None
    activations = every(records, portfolio=origin.portfolio, kind="activation", written=True)
    for later in takewhile(lambda one: one.id != origin.id, activations):
        if later.model_version != version and later.time > time:
            until = later  # the newest first, so that the last one seen is the next one then
    return {
        "model_version": version,
        "policy_version": origin.policy_version,
        "package_sha256": sha256,
        "since": moment(origin.time),
        "until": None if until is None else moment(until.time),
        "record": origin.id,
        **told,
        "promotion": None if promotion is None else _promotion(records.get(promotion)),
        "approvals": list(_approvals(records, origin.portfolio, version, time)),
    }


def _promotion(record: Record) -> Json:
    with read(record.id, record.kind):
        return {
            "record": record.id,
            "policy": record.body["promotion_policy"],
            "judgement": record.body["judgement"],
            "approvals": record.body["approvals"],
        }


def _approvals(records: Records, portfolio: str, version: str | None, time: int) -> Iterator[Json]:
    """Who had approved the package by then, the first one first."""
    found = every(
        records, portfolio=portfolio, kind="approval", model_version=version, until=time + 1
    )
    for record in reversed(list(found)):
        with read(record.id, record.kind):
            told = {name: record.body[name] for name in ("approver", "key_id", "package_sha256")}
        yield {**told, "time": moment(record.time), "record": record.id}


def _challenge(record: Record | None) -> Json | None:
    """The challenge in force; None without one."""
    if record is None:
        return None
    with read(record.id, record.kind):
        if record.body["to"] is None:
            return None
        return {
            "model_version": record.body["to"],
            "share": record.body["share"],
            "since": moment(record.time),
            "by": record.body["by"],
            "record": record.id,
        }


def _event(record: Record) -> Json:
    body = record.body
    with read(record.id, record.kind):
        match record.kind:
            case "activation" if body["from"] == body["to"]:
                what, who = f"{body['action']}: decides already", body["by"]
            case "activation":
                what, who = f"{body['action']}: decides instead of {body['from']}", body["by"]
            case "challenge" if body["to"] is None:
                what, who = f"challenge of {body['from'] or 'whoever it was'} ends", body["by"]
            case "challenge" if "suspended" in body:
                what, who = f"decides about nobody any more: {body['suspended']}", body["by"]
            case "challenge":
                share = f"for {body['share']:.4g} of applicants" if body["share"] else "in shadow"
                what, who = f"challenges, {share}", body["by"]
            case "promotion":
                what, who = f"promotion: {body['outcome']}", body["by"]
            case _:
                what, who = "approved", body["approver"]
    return {
        "time": moment(record.time),
        "kind": record.kind,
        "model_version": record.model_version,
        "what": what,
        "who": who,
        "record": record.id,
    }
