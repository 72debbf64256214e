"""Promoting a candidate: what it has shown, who has approved it, and then it decides.

Each run leaves a record of kind "promotion", also one that refuses::

    {"outcome": "PROMOTED", "REFUSED" or "UNAPPROVED", "candidate": version, "champion": version,
     "package_sha256": digest, "promotion_policy": {"version": ..., "sha256": ...},
     "judgement": ..., "approvals": {"required": 2, "given": {name: key id}}, "by": who}

That of a promotion is in one transaction with the activation, whose body names it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from credit_risk import (
    challenges,
    contests,
    documents,
    environment,
    portfolio,
    promotion,
    rivals,
)
from credit_risk.approvals import Signed
from credit_risk.audit import keys
from credit_risk.audit.records import unrequested
from credit_risk.errors import ExplanationFailed, PackageInvalid, PackageNotFound
from credit_risk.promotion import Evidence, HoldOut
from credit_risk.serving import activation
from credit_risk.windows import DAY, Window

if TYPE_CHECKING:
    from credit_risk.audit.log import SqlAuditLog
    from credit_risk.audit.records import AuditLog, Record
    from credit_risk.package import ModelPackage
    from credit_risk.promotion import Judgement, PromotionPolicy
    from credit_risk.serving.store import Store
    from credit_risk.settings import Settings

Outcome: TypeAlias = Literal["PROMOTED", "REFUSED", "UNAPPROVED"]


@dataclass(frozen=True, slots=True)
class Examination:
    """A candidate beside what is asked of one.

    ``champion`` is None where nothing decides yet; ``package_sha256`` where the package is broken.
    ``approved`` is who has approved it. ``seen`` is the id of the last activation.
    """

    candidate: str
    champion: str | None
    package_sha256: str | None
    policy: PromotionPolicy
    judgement: Judgement
    approved: Signed
    seen: str | None

    @property
    def lacking(self) -> int:
        """How many more people have to approve."""
        return max(self.policy.approvals - len(self.approved.by), 0)

    @property
    def outcome(self) -> Outcome:
        """What promoting it would come to."""
        if self.judgement.verdict == "REFUSED":
            return "REFUSED"
        return "UNAPPROVED" if self.lacking else "PROMOTED"

    def record(self, name: str) -> Record:
        """What is put on record of it, in the portfolio of that name."""
        return unrequested(
            "promotion",
            name,
            {
                "outcome": self.outcome,
                "candidate": self.candidate,
                "champion": self.champion,
                "package_sha256": self.package_sha256,
                "promotion_policy": {
                    "version": self.policy.version,
                    "sha256": documents.digest(self.policy),
                },
                "judgement": self.judgement.model_dump(mode="json"),
                "approvals": {"required": self.policy.approvals, "given": self.approved.key_ids},
                "by": environment.user(),
            },
            model_version=self.candidate,
        )


def examine(settings: Settings, audit: SqlAuditLog, store: Store, version: str) -> Examination:
    """Hold a candidate against the portfolio's promotion policy; nothing is recorded.

    Args:
        settings: whose portfolio.
        audit: what is on record, also of those whom both packages were asked about.
        store: where packages are.
        version: of the candidate.

    Raises:
        PackageNotFound: it is not installed.
        PackageInvalid: it decides already; or the package that decides is broken.
        PortfolioInvalid: there is no promotion policy, or a wrong one.
        KeysInvalid: the file of approvers is wrong, or keys of groups are.
        RecordingFailed: the record database cannot be read.
        EvidenceInvalid: a group on record was altered.
    """
    name = settings.portfolio
    policy = promotion.read(portfolio.folder(settings.portfolios_dir, name), name)
    last = audit.latest(name, "activation")
    try:
        champion = activation.wanted_version(settings, audit, store)
    except PackageNotFound:
        champion = None  # the first package of a portfolio that ships none
    if version == champion:
        raise PackageInvalid(f"{version} decides already")
    store.path(name, version)
    package: ModelPackage | None = None
    approved = Signed({})
    try:
        package = activation.load_checked(store, name, version)
    except (PackageInvalid, ExplanationFailed) as error:
        evidence = Evidence(fault=str(error), first=champion is None)
    else:
        one = None if champion is None else store.load(name, champion)
        evidence = gathered(package, one)
        if one is not None:
            evidence = _contested(settings, audit, one, package, evidence, policy.shadow_days)
        approved = activation.signers(settings, audit, store, version, package.digest)
    return Examination(
        candidate=version,
        champion=champion,
        package_sha256=None if package is None else package.digest,
        policy=policy,
        judgement=promotion.judge(policy, evidence),
        approved=approved,
        seen=None if last is None else last.id,
    )


def gathered(candidate: ModelPackage, champion: ModelPackage | None) -> Evidence:
    """What packages show of a candidate beside the one that decides, if one does."""
    shown = candidate.metrics.get("fidelity", {}).get("same_first_reason")
    return Evidence(
        first=champion is None,
        candidate=HoldOut.of(candidate.metrics),
        champion=None if champion is None else HoldOut.of(champion.metrics),
        beside=None if champion is None else rivals.beside(champion, candidate),
        same_first_reason=shown,
        additivity_error=rivals.additivity_error(candidate),
    )


def _contested(  # noqa: PLR0917 - each of a type of its own
    settings: Settings,
    audit: SqlAuditLog,
    champion: ModelPackage,
    candidate: ModelPackage,
    evidence: Evidence,
    days: int,
) -> Evidence:
    """The same with what both were asked about, of this challenge and of so many days."""
    now = time.time_ns() // 1_000
    begun = challenges.begun(audit, settings.portfolio, candidate.version)
    every = Window(now if begun is None else min(begun, now), now)
    recent = Window(max(every.since, now - days * DAY), now)
    return replace(
        evidence,
        contest=contests.contest(
            audit,
            champion,
            candidate,
            window=recent,
            outcomes=every,
            groups_sealing=keys.groups_sealing(settings),
        ),
        since=None if begun is None else recent.since,
        left_out=contests.outside(audit, champion, candidate, recent),
    )


def promote(
    settings: Settings, audit: AuditLog, store: Store, examined: Examination
) -> tuple[Record, Record | None]:
    """Have a candidate decide that passed and was approved; put on record what it came to.

    Returns:
        The record of the promotion, and that of the activation if it came to one.

    Raises:
        Conflict: another activation was recorded since it was examined; nothing is on record.
        PackageNotFound, PackageInvalid, ExplanationFailed, KeysInvalid: see `activation.activate`.
        RecordingFailed: nothing of it is known to be on record.
    """
    name = settings.portfolio
    record = examined.record(name)
    if examined.outcome != "PROMOTED":
        audit.append([record]).result()
        return record, None
    activated = activation.activate(
        settings,
        audit,
        store,
        examined.candidate,
        action="promote",
        besides={"promotion": record.id},
        together=[record],
        alongside=partial(activation.nothing_since, name, examined.seen),
    )
    return record, activated
