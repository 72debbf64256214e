"""The log of records as commands verify it, and how far that goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from credit_risk.cli.opening import months_least, text_of
from credit_risk.cli.printing import rows_done
from credit_risk.errors import EvidenceInvalid, KeysInvalid
from credit_risk.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from credit_risk.audit.checkpoints import Checkpoint
    from credit_risk.audit.findings import Report
    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.log import SqlRecords

_UNCHECKED = (
    "signatures were NOT checked: no signing key is set, and no public key was named "
    "(--public-key). Who can write to the database can have made any checkpoint"
)
_OWN_KEY = (
    "checked with the server's own key: who has that can have signed anything. A public "
    "key kept elsewhere (--public-key) and an anchor (--anchor) prove more"
)


def verified(
    settings: Settings,
    records: SqlRecords,
    public_keys: Sequence[Path] = (),
    *,
    anchors: Sequence[Checkpoint] = (),
    sealing: Sealing | None = None,
) -> Report:
    """The log of all records, verified with what there is to verify it with.

    Args:
        settings: have the term of records, the note, and the key where none is named.
        records: where.
        public_keys: files of keys whose checkpoints count.
        anchors: checkpoints that were kept elsewhere.
        sealing: opens what is sealed, if that is asked for.
    """
    from credit_risk.audit import verification

    trusted = _trusted(settings, public_keys)
    with rows_done("verifying", "records") as progress:
        report = verification.verify(
            records.reading,
            trusted,
            anchors=anchors,
            sealing=sealing,
            months=months_least(settings),
            progress=progress,
        )
    _hold_against_note(report, records, settings.note, trusted)
    _hold_outcomes(report, records)
    if not trusted:
        report.notes.append(_UNCHECKED)
    elif not public_keys:
        report.notes.append(_OWN_KEY)
    return report


def _hold_outcomes(report: Report, records: SqlRecords) -> None:
    """Hold the table of outcomes against the records, which takes the keys that seal them."""
    from credit_risk import outcomes

    try:
        for difference in outcomes.differences(records):
            report.add_outcome(difference)
        report.misrecorded = report.misrecorded or 0
    except KeysInvalid as error:
        report.notes.append(f"the table of outcomes was NOT compared: {error}")


def _trusted(settings: Settings, public_keys: Sequence[Path]) -> list[Ed25519PublicKey]:
    """The keys whose checkpoints count: those that are named, or the settings' own, if any."""
    from credit_risk.audit import keys

    if public_keys:
        return [keys.public_key(text_of(path)) for path in public_keys]
    own = keys.signing_key(settings)
    return [] if own is None else [own.public_key()]


def _hold_against_note(
    report: Report, records: SqlRecords, note: Path, trusted: Sequence[Ed25519PublicKey]
) -> None:
    """Say of a checkpoint that a server here has seen that it is gone.

    That is a finding where nothing at all is on record. Else it is none, for what is verified may
    be a copy of earlier; who knows better gives the note as an anchor.
    """
    from credit_risk.audit import rollback
    from credit_risk.audit.findings import Finding
    from credit_risk.audit.signatures import fits

    try:
        gone, _ = rollback.missing(records, note)
    except EvidenceInvalid as error:
        report.notes.append(str(error))
        return
    if gone is None:
        return
    signed = not trusted or any(fits(key, gone) for key in trusted)
    if signed and not report.records:
        told = f"all of them, which checkpoint {gone.number} was signed for that {note} has"
        report.add(Finding("removed", 1, gone.last, None, told))
        return
    report.notes.append(
        f"a server with this state directory has seen checkpoint {gone.number}, up to record "
        f"{gone.last}, and it is not on record as it was: --anchor {note} makes that a finding"
    )
