"""Which package decides: activation, rollback, and noticing them in a running server.

The active version is configuration kept in the record database: the last activation record of
the portfolio. So a switch is itself evidence, reaches every worker and replica, and needs no
code change. A server whose ``MODEL_VERSION`` is set serves that version and nothing else.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import sqlalchemy as sa

from credit_risk import approvals, challenges, environment
from credit_risk.approvals import Signed
from credit_risk.audit.records import every, read, unrequested
from credit_risk.audit.tables import RECORDS
from credit_risk.canary import Canary
from credit_risk.errors import (
    Conflict,
    CreditRiskError,
    EvidenceInvalid,
    PackageInvalid,
    PackageNotFound,
    RecordingFailed,
    RegistryUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from credit_risk.audit.records import Alongside, AuditLog, Record, RecordKind, Records
    from credit_risk.batching import Batcher
    from credit_risk.challenges import Challenge
    from credit_risk.package import ModelPackage
    from credit_risk.serving.store import Store, Verified
    from credit_risk.settings import Settings

logger = logging.getLogger("credit_risk.activation")

_C = RECORDS.c


class ActivationObserver(Protocol):
    """Who counts activations."""

    def activated(self, package: ModelPackage, before: ModelPackage | None) -> None:
        """Another package decides from now on."""

    def activation_failed(self, portfolio: str) -> None:
        """A wanted package could not be loaded."""

    def challenged(
        self, portfolio: str, challenge: Challenge | None, before: Challenge | None
    ) -> None:
        """Another challenge is in force from now on, or none."""

    def expect(self, package: ModelPackage) -> None:
        """A package is going to decide about some."""


def wanted_version(settings: Settings, records: Records | None, store: Store) -> str:
    """The version that is to decide: pinned, or last activated, or shipped as the default.

    ``records`` is None where nothing was recorded yet.

    Raises:
        PackageNotFound: none of the three.
        RecordingFailed: the record database cannot be read.
    """
    return _wanted(settings, records, store)[0]


def _wanted(settings: Settings, records: Records | None, store: Store) -> tuple[str, str | None]:
    """The version that is to decide, and the id of the activation that says so, if one does."""
    if settings.model_version is not None:
        return settings.model_version, None
    last = None if records is None else records.latest(settings.portfolio, "activation")
    if last is not None and last.model_version is not None:
        return last.model_version, last.id
    return store.shipped_default(settings.portfolio), None


def load_checked(store: Store, portfolio: str, version: str) -> ModelPackage:
    """Load a package and let it answer its golden records.

    Raises:
        PackageNotFound: not installed.
        PackageInvalid: sums do not match, or it answers a golden record differently here.
        ExplanationFailed: it cannot explain a golden record.
    """
    # Here and not above: a rollback asks no golden records, and does not wait for their kernels.
    from credit_risk.scoring import check_golden  # noqa: PLC0415

    package = store.load(portfolio, version)
    check_golden(package)
    return package


def load_to_decide(
    settings: Settings, records: Records | None, store: Store, version: str
) -> ModelPackage:
    """Load a package that is to decide: whole, with its golden answers, and signed by enough.

    ``records`` is None where nothing was recorded yet.

    Raises:
        PackageNotFound, PackageInvalid, ExplanationFailed: see `load_checked`.
        PackageInvalid: too few approvers have signed it, see ``REQUIRED_SIGNATURES``.
        KeysInvalid: the file of approvers is wrong.
        RecordingFailed: the record database cannot be read.
    """
    package = load_checked(store, settings.portfolio, version)
    return replace(
        package, signed_by=check_signed(settings, records, store, version, package.digest)
    )


def load_or_fetch(
    settings: Settings,
    records: Records | None,
    store: Store,
    version: str,
    fetch: Callable[[str], None] | None,
) -> ModelPackage:
    """`load_to_decide`, but what is not in the store is put there by ``fetch``, if that is given.

    Raises:
        RegistryUnavailable: it could not be fetched now.
    """
    try:
        return load_to_decide(settings, records, store, version)
    except PackageNotFound:
        if fetch is None:
            raise
    fetch(version)
    return load_to_decide(settings, records, store, version)


def signers(
    settings: Settings, records: Records | None, store: Store, version: str, package_sha256: str
) -> Signed:
    """Who has approved a package, each person once.

    Signatures count that lie beside the package, and those on record.

    Raises:
        PackageInvalid, KeysInvalid, RecordingFailed: see `load_to_decide`.
    """
    if settings.approvers_file is None:
        return Signed({})
    known = approvals.approvers(settings.approvers_file)
    found, junk = store.signatures(settings.portfolio, version)
    if records is not None:
        recorded = approvals.recorded(records, settings.portfolio, version)
        found, junk = found + recorded.found, junk + recorded.junk
    signed = known.valid(found, settings.portfolio, package_sha256)
    return signed._replace(others=signed.others + junk)


def check_signed(
    settings: Settings, records: Records | None, store: Store, version: str, package_sha256: str
) -> tuple[str, ...]:
    """The ids of the keys that a package is signed with; raises as `load_to_decide` does."""
    found = signers(settings, records, store, version, package_sha256)
    if len(found.by) < settings.required_signatures:
        msg = (
            f"package {version} is signed by {len(found.by)} approvers ({found.told()}), and "
            f"REQUIRED_SIGNATURES is {settings.required_signatures}: see credit-risk approve"
        )
        raise PackageInvalid(msg)
    return tuple(found.key_ids.values())


def activate(
    settings: Settings,
    audit: AuditLog,
    store: Store,
    version: str,
    *,
    action: str = "activate",
    besides: Mapping[str, Any] | None = None,
    together: Sequence[Record] = (),
    alongside: Alongside | None = None,
) -> Record:
    """Check a package and make it the one that decides; returns the durable record of it.

    If it was the challenger, its challenge ends with that.

    Args:
        settings: whose portfolio it is.
        audit: where it is recorded.
        store: where the package is.
        version: of the package.
        action: what it is called on record.
        besides: what more the record's body says: where the wish came from, who agreed.
        together: records that are made with it, or not at all; before it, in their order.
        alongside: see `AuditLog.append`.

    Raises:
        Conflict: what ``alongside`` says.
        PackageNotFound: not installed.
        PackageInvalid: see `load_to_decide`; or ``MODEL_VERSION`` pins a version.
        ExplanationFailed, KeysInvalid: see `load_to_decide`.
        RecordingFailed: the activation could not be recorded, so it did not happen.
    """
    _check_unpinned(settings)
    package = load_to_decide(settings, audit, store, version)
    body = {**_signatures(package.signed_by), **(besides or {})}
    ended = _challenge_ended(audit, settings.portfolio, version)
    record = _activation(settings, audit, store, package, action, body)
    audit.append([*together, *ended, record], alongside=alongside).result()
    return record


def _challenge_ended(audit: AuditLog, portfolio: str, version: str) -> list[Record]:
    """The end of the challenge by a package that is going to decide, if it is the challenger.

    Else whoever rolls back from it would have it decide about its share of applicants again.
    """
    challenge = None
    with suppress(EvidenceInvalid):  # verification names it; it keeps nobody from rolling back
        challenge = challenges.in_force(audit, portfolio)
    if challenge is None or challenge.version != version:
        return []
    return [challenges.challenge_record(portfolio, None, challenge, 0.0)]


def _check_unpinned(settings: Settings) -> None:
    if settings.model_version is not None:
        msg = (
            f"MODEL_VERSION pins {settings.model_version}: unset it, or change it, to switch "
            "this server"
        )
        raise PackageInvalid(msg)


def _signatures(signed_by: tuple[str, ...]) -> dict[str, Any]:
    return {"signatures": list(signed_by)} if signed_by else {}


def _activation(  # noqa: PLR0917 - each of a type of its own
    settings: Settings,
    audit: AuditLog,
    store: Store,
    package: ModelPackage | Verified,
    action: str,
    besides: Mapping[str, Any],
) -> Record:
    """The record of an activation, which nobody has written yet."""
    try:
        before = wanted_version(settings, audit, store)
    except PackageNotFound:
        before = None  # the first package of a portfolio that ships none
    return unrequested(
        "activation",
        settings.portfolio,
        {
            "action": action,
            "by": environment.user(),
            "from": before,
            "to": package.version,
            "package_sha256": package.digest,
            **besides,
        },
        model_version=package.version,
        policy_version=package.policy_version,
    )


def nothing_since(
    portfolio: str, seen: str | None, connection: sa.Connection, kind: RecordKind = "activation"
) -> None:
    """See that no activation came between the one that was seen and the newest, which is ours.

    Nor a challenge, if that is the ``kind``. For `Alongside`.

    Raises:
        Conflict: one did.
    """
    newest = (
        sa.select(_C.id)
        .where(_C.portfolio == portfolio, _C.kind == kind)
        .order_by(_C.sequence.desc())
        .limit(2)
    )
    before = connection.execute(newest).scalars().all()[1:]
    if before != ([] if seen is None else [seen]):
        raise Conflict(f"another {kind} was recorded meanwhile")


def note_followed(audit: AuditLog, record: Record, registry: Mapping[str, Any]) -> None:
    """Put on record that the registry's alias stands by now for what an activation has decide.

    So a server that follows the alias knows that it has. Else it would follow it a while later,
    also where something else was activated meanwhile, as in an outage of the registry.

    Args:
        audit: where.
        record: the activation; if another came since, nothing is recorded.
        registry: the version in the registry, as in the body of an activation that followed it.

    Raises:
        RecordingFailed: it could not be recorded.
    """
    body = {"by": record.body["by"], "from": record.body["to"], "to": record.body["to"]}
    about = {"package_sha256": record.body["package_sha256"], "registry": dict(registry)}
    noted = unrequested(
        "activation",
        record.portfolio,
        {"action": "follow", **body, **about},
        model_version=record.model_version,
        policy_version=record.policy_version,
    )
    with suppress(Conflict):
        audit.append(
            [noted], alongside=partial(nothing_since, record.portfolio, record.id)
        ).result()


def rollback(settings: Settings, audit: AuditLog, store: Store) -> Record:
    """Activate the version that decided before the last activation.

    Rolling back twice goes back two versions, not forth again. The package is verified and, where
    that is asked for, its signatures are, but its model is not loaded, which takes most of a
    second: it has decided before, and no worker switches to it before it answers its golden
    records.

    Raises:
        PackageNotFound: there is no version to go back to, or it is not installed.
        PackageInvalid: its sums do not match, too few approvers have signed it, or
            ``MODEL_VERSION`` pins a version.
        KeysInvalid: the file of approvers is wrong.
        RecordingFailed: it could not be recorded, so it did not happen.
        EvidenceInvalid: an activation is not as it was written.
    """
    _check_unpinned(settings)
    package = store.verified(settings.portfolio, previous_version(settings, audit))
    by = check_signed(settings, audit, store, package.version, package.digest)
    ended = _challenge_ended(audit, settings.portfolio, package.version)
    record = _activation(settings, audit, store, package, "rollback", _signatures(by))
    audit.append([*ended, record]).result()
    return record


def previous_version(settings: Settings, audit: AuditLog) -> str:
    """The version that a rollback goes back to.

    Raises:
        PackageNotFound: nothing was activated, or everything was rolled back.
        EvidenceInvalid: an activation is not as it was written.
    """
    nowhere = f"portfolio {settings.portfolio}: there is no version to go back to"
    undone = 0
    # As they were written, like `latest`: by clocks, one that is wrong would undo another one.
    for record in every(audit, portfolio=settings.portfolio, kind="activation", written=True):
        with read(record.id, record.kind):
            is_rollback = record.body["action"] == "rollback"
            version: str | None = record.body["from"]
            changed = version != record.body["to"]
        if not changed:
            continue  # so there is nothing to go back from
        if is_rollback:
            undone += 1
        elif undone:
            undone -= 1
        elif version is None:
            break
        else:
            return version
    raise PackageNotFound(nowhere)


class ActivePackage:
    """The package that decides in this process; follows activations while it runs.

    A request takes `current` once and uses that package to its end, so a switch drops nothing
    and mixes nothing. What is loaded is checked first; what cannot be loaded leaves the one
    before in place, is logged, counted and shown by ``/health``.

    ``challenge`` is the challenge in force, as it was last seen; ``canary`` is the challenger that
    decides about a share of applicants, if one is to, and can.

    ``queue`` makes a batcher for a challenger. ``fetch`` puts a version into the store that is not
    there, or raises a `CreditRiskError`.
    """

    def __init__(  # noqa: PLR0917 - collaborators, each of a type of its own
        self,
        settings: Settings,
        audit: AuditLog,
        store: Store,
        observer: ActivationObserver,
        queue: Callable[[], Batcher],
        fetch: Callable[[str], None] | None = None,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._store = store
        self._observer = observer
        self._queue = queue
        self._fetch = fetch
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.fault: str | None = None
        self._unread = False
        version = wanted_version(settings, audit, store)
        self.current = load_or_fetch(settings, audit, store, version, fetch)
        self._refused: tuple[str, str | None] | None = None
        self.challenge: Challenge | None = None
        self.canary: Canary | None = None
        self._unable: tuple[str, str] | None = None
        self._altered: str | None = None
        self._again = self._canary_again = 0.0
        observer.activated(self.current, None)
        self._look_for_challenge()

    @property
    def champion(self) -> str:
        """The version that decides."""
        return self.current.version

    def folders(self) -> dict[str, str]:
        """The folders of installed packages, by version."""
        found = self._store.folders(self._settings.portfolio)
        return {**found, self.current.version: str(self.current.path)}

    def follow(self) -> None:
        """Look for newly activated versions, unless one is pinned, and challenges until `close`."""
        self._thread = threading.Thread(target=self._follow, name="activation", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> None:
        """Look once, switch if another version was activated, and see who challenges.

        A version that could not be loaded is tried again when it is activated again.
        """
        self._look_for_activation()
        self._look_for_challenge()

    def _look_for_activation(self) -> None:
        try:
            wanted = _wanted(self._settings, self._audit, self._store)
        except CreditRiskError as error:
            # Readiness tells of the database; here it only means that nothing is known to be new.
            if not self._unread:
                logger.warning("activations cannot be read, until further notice: %s", error)
            self._unread = True
            return
        if self._unread:
            logger.info("activations can be read again")
            self._unread = False
        version = wanted[0]
        if version == self.current.version:
            self.fault = self._refused = None
            return
        if wanted == self._refused and time.monotonic() < self._again:
            return
        try:
            package = load_or_fetch(self._settings, self._audit, self._store, version, self._fetch)
        except Exception as error:
            # Whatever loading or trying it came to, the one before goes on deciding, and the
            # thread that looks goes on looking.
            self.fault = f"version {version} was activated but cannot be loaded: {error}"
            self._refused = wanted
            # What is broken stays so until somebody activates it again; a registry comes back.
            away = isinstance(error, RegistryUnavailable)
            self._again = (
                time.monotonic() + self._settings.registry_poll_seconds if away else math.inf
            )
            self._observer.activation_failed(self._settings.portfolio)
            logger.exception("%s; %s goes on deciding", self.fault, self.current.version)
            return
        before, self.current = self.current, package
        self.fault = self._refused = None
        self._observer.activated(package, before)
        logger.info("%s decides from now on, %s no longer", package.version, before.version)

    def _look_for_challenge(self) -> None:
        """Go by the challenge in force, and by none where its record was altered."""
        if self.canary is not None and self.canary.trials.failed:
            self._suspend(self.canary)
        altered = None
        try:
            challenge = challenges.in_force(self._audit, self._settings.portfolio)
        except RecordingFailed:
            return  # as for activations, which tell of it
        except EvidenceInvalid as error:
            challenge, altered = None, str(error)
            if altered != self._altered:
                logger.error("nobody is known to challenge %s: %s", self.current.version, error)  # noqa: TRY400 - the error says it
        self._altered = altered
        if challenge is None or not challenge.share or self._settings.model_version is not None:
            self.canary = None
        elif self.canary is None or self.canary.challenge != challenge:
            self._load_canary(challenge)
        if challenge == self.challenge:
            return
        before, self.challenge = self.challenge, challenge
        self._observer.challenged(self._settings.portfolio, challenge, before)
        if challenge is None:
            logger.info("nobody challenges %s any more", self.current.version)
        else:
            logger.info(
                "%s challenges %s, for %g of applicants",
                challenge.version,
                self.current.version,
                challenge.share,
            )

    def _suspend(self, canary: Canary) -> None:
        """Have a challenger that failed too often decide about nobody, here and everywhere.

        In this worker it does not since it failed; the record is tried for until it is there.
        """
        challenge, error = canary.challenge, type(canary.trials.last).__name__
        why = f"it failed {canary.trials.failures} calls in a row, the last one with {error}"
        record = challenges.challenge_record(
            challenge.portfolio, canary.package, challenge, 0.0, suspended=why
        )
        unchanged = partial(nothing_since, challenge.portfolio, challenge.id, kind="challenge")
        # Where it cannot be recorded, the next look tries again; others may have been first.
        with suppress(RecordingFailed, Conflict):
            self._audit.append([record], alongside=unchanged).result()
            logger.error(
                "challenger %s decides about nobody any more: %s; what hangs goes on until this "
                "server is restarted",
                challenge.version,
                why,
            )

    def _load_canary(self, challenge: Challenge) -> None:
        """Have the challenger decide; what hinders it is told once, and tried again now and then.

        A package that comes later, or is signed later, decides from then on.
        """
        version = challenge.version
        told = self._unable is not None and self._unable[0] == challenge.id
        if told and time.monotonic() < self._canary_again:
            return
        if self.canary is not None and self.canary.package.version == version:
            self.canary = Canary(challenge, self.canary.package, self._queue())
            return
        self.canary = None
        try:
            package = load_or_fetch(self._settings, self._audit, self._store, version, self._fetch)
        except CreditRiskError as error:
            self._canary_again = time.monotonic() + self._settings.registry_poll_seconds
            if self._unable != (challenge.id, str(error)):
                self._unable = (challenge.id, str(error))
                self._observer.activation_failed(self._settings.portfolio)
                logger.exception("challenger %s decides about nobody here", version)
            return
        self._observer.expect(package)
        self.canary = Canary(challenge, package, self._queue())

    def _follow(self) -> None:
        while not self._stop.wait(self._settings.activation_poll_seconds):
            try:
                self.refresh()
            except Exception:
                # What nobody foresaw is no reason not to look again.
                logger.exception("activations could not be followed")
