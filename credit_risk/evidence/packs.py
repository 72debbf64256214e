"""The pack: everything there is to show, by topics and the sections of a regime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from credit_risk import __version__
from credit_risk.audit.records import moment, pages
from credit_risk.evidence import monitored, packaged, recorded
from credit_risk.evidence.topics import Topic
from credit_risk.replay import PAGE_RECORDS, Comparison, listings_of, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from credit_risk.audit.findings import Report
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import Filters, Records
    from credit_risk.package import ModelPackage
    from credit_risk.regimes import Evidence, Regime

FORMAT = 1

TITLES: dict[Evidence, str] = {
    "model-card": "Model card",
    "data-provenance": "Where the data are from",
    "performance": "Performance on rows held out",
    "calibration": "Calibration on rows held out",
    "reasons-method": "Reasons: method and fidelity",
    "fairness": "Fairness",
    "policy": "Policy",
    "approvals": "Approvals",
    "activation-history": "Activation history",
    "decisions": "Decisions made",
    "reviews": "Human reviews",
    "record-integrity": "Integrity of the records",
    "replay": "Decisions made again",
    "drift": "Drift",
    "outcomes": "Outcomes",
    "regime": "Regime",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out for the pack; None where it was not looked for.

    ``replayed`` are decisions of the package made again, ``integrity`` is what a verification of
    the whole log ended with, ``reviews`` the counts of reviews of its decisions, or in words why
    they cannot be counted.
    """

    replayed: Comparison | None = None
    integrity: Report | None = None
    reviews: Mapping[str, Any] | str | None = None


def pack(
    package: ModelPackage,
    regime: Regime,
    regime_sha256: str,
    records: SqlRecords | None,
    findings: Findings,
    *,
    made_at: int,
) -> dict[str, Any]:
    """Everything there is to show, as JSON.

    Args:
        package: what it is about.
        regime: whose sections are answered.
        regime_sha256: of its file.
        records: of decisions and activations; None where nothing was recorded yet.
        findings: what was found out before.
        made_at: now, microseconds since the epoch.

    Raises:
        RecordingFailed: the records cannot be read.
    """
    topics: dict[Evidence, Topic] = {
        "model-card": packaged.card(package),
        "data-provenance": packaged.provenance(package),
        "performance": packaged.performance(package),
        "calibration": packaged.calibration(package),
        "reasons-method": packaged.reasons(package),
        "fairness": monitored.fairness(package, records),
        "policy": packaged.policy(package),
        "approvals": recorded.approvals(package, records),
        "activation-history": recorded.activations(package, records),
        "decisions": recorded.decisions(package, records),
        "reviews": recorded.reviews(package, records, findings.reviews),
        "record-integrity": recorded.integrity(records, findings.integrity),
        "replay": recorded.replays(package, findings.replayed),
        "drift": monitored.drift(package, records),
        "outcomes": monitored.outcomes(package, records),
        "regime": packaged.regime(regime, regime_sha256),
    }
    asked = dict.fromkeys(name for section in regime.sections for name in section.requires)
    return {
        "format": FORMAT,
        "made_at": moment(made_at),
        "service": {"name": "credit-risk-server", "version": __version__},
        "portfolio": package.portfolio,
        "title": package.schema.title,
        "model_version": package.version,
        "package_sha256": package.digest,
        "policy_version": package.policy_version,
        "regime": {
            "id": regime.id,
            "version": regime.version,
            "title": regime.title,
            "caveat": regime.caveat,
            "sha256": regime_sha256,
        },
        "findings": [
            {"topic": name, "text": text}
            for name, topic in topics.items()
            for text in topic.findings
        ],
        "missing": [name for name in topics if name in asked and topics[name].missing is not None],
        "figures": [
            {"topic": name, "label": label, "value": value}
            for name, topic in topics.items()
            for label, value in topic.figures.items()
        ],
        "sections": [
            {
                "id": section.id,
                "title": section.title,
                "requires": [
                    {"topic": name, "shown": topics[name].missing is None}
                    for name in section.requires
                ],
            }
            for section in regime.sections
        ],
        "topics": {name: topic.to_json(TITLES[name]) for name, topic in topics.items()},
    }


def replayed(
    package: ModelPackage,
    records: Records,
    most: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Comparison:
    """The newest decisions of a package, made again.

    Args:
        package: that decided.
        records: hold the decisions.
        most: as many at most.
        progress: told how many are done, of how many.

    Raises:
        RecordingFailed: the records cannot be read.
    """
    comparison, listings = Comparison(), listings_of(records)
    within: Filters = {
        "portfolio": package.portfolio,
        "kind": "decision",
        "model_version": package.version,
    }
    total = min(most, records.count(**within))
    for page in pages(records, size=min(PAGE_RECORDS, max(total, 1)), **within):
        some = page[: total - comparison.records]
        for made in replay(some, lambda _portfolio, _version: package, listings=listings):
            comparison.add(made)
        progress(comparison.records, total)
        if comparison.records >= total:
            break
    return comparison
