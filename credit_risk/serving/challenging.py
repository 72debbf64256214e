"""Making a challenge: a package beside the one that decides, checked as for an activation."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from credit_risk import challenges
from credit_risk.errors import EvidenceInvalid, PackageInvalid, PackageNotFound
from credit_risk.serving.activation import check_signed, load_checked, wanted_version

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credit_risk.audit.records import AuditLog, Record
    from credit_risk.package import ModelPackage
    from credit_risk.serving.store import Store
    from credit_risk.settings import Settings


def challenge(
    settings: Settings,
    audit: AuditLog,
    store: Store,
    version: str,
    *,
    share: float = 0.0,
    registry: Mapping[str, Any] | None = None,
) -> Record:
    """Check a package and make it the challenger; returns the durable record of it.

    Args:
        settings: whose portfolio.
        audit: where it is recorded.
        store: where the package is.
        version: of the package.
        share: of applicants that it decides about, 0 to 1; 0 is shadow.
        registry: where its version was found, if in a registry.

    Raises:
        PackageNotFound: it is not installed, or nothing decides yet.
        PackageInvalid: see `load_checked`; or it decides already; or it is to decide about a share,
            and cannot: its schema is another one, too few approvers have signed it, or
            ``MODEL_VERSION`` pins a version.
        ExplanationFailed: see `load_checked`.
        RecordingFailed: the challenge could not be recorded, so there is none.
    """
    champion = wanted_version(settings, audit, store)
    if version == champion:
        raise PackageInvalid(f"{version} decides already, and cannot challenge itself")
    package = load_checked(store, settings.portfolio, version)
    if share:
        if settings.model_version is not None:
            msg = (
                f"MODEL_VERSION pins {settings.model_version}, and this server decides with no "
                "other: without a share, the challenger is asked beside it"
            )
            raise PackageInvalid(msg)
        check_schema(store.load(settings.portfolio, champion), package)
        check_signed(settings, audit, store, version, package.digest)
    before = None
    with suppress(EvidenceInvalid):  # this one takes its place, whatever it was
        before = challenges.in_force(audit, settings.portfolio)
    record = challenges.challenge_record(settings.portfolio, package, before, share, registry)
    audit.append([record]).result()
    return record


def end(settings: Settings, audit: AuditLog) -> Record:
    """End the challenge; returns the durable record of it.

    Also one whose record was altered: it is nobody's then, and has no other end.

    Raises:
        PackageNotFound: there is none.
        RecordingFailed: the end could not be recorded, so the challenge goes on.
    """
    try:
        before = challenges.in_force(audit, settings.portfolio)
    except EvidenceInvalid:
        before = None
    else:
        if before is None:
            raise PackageNotFound(f"portfolio {settings.portfolio}: there is no challenger")
    record = challenges.challenge_record(settings.portfolio, None, before, 0.0)
    audit.append([record]).result()
    return record


def check_schema(champion: ModelPackage, challenger: ModelPackage) -> None:
    """See that both take the same applications: who decides is not known when one is read.

    Raises:
        PackageInvalid: their schemas differ.
    """
    if not champion.takes_what(challenger):
        msg = (
            f"{challenger.version} has another schema.yaml than {champion.version}, which decides: "
            "it can be asked beside it (no share), and decide about nobody"
        )
        raise PackageInvalid(msg)
