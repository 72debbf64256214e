"""Following the registry's aliases: what is champion or challenger there becomes so here.

One process of each server asks the registry, every half minute or so. It holds a lock on a file of
the state directory for as long as it lives, so that another takes over when it ends. Where an
alias moved, it fetches the package, verifies it, lets it answer its golden records, and records an
activation, or a challenge by which it decides about nobody. All workers of all servers notice that
as they notice any other.

An alias is followed when it **moved**: when it stands for another version of the registry than the
last record says that came from it. So a rollback made here while the registry was away is not
undone when it is back, and neither is anything else: what was said last holds, whoever said it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from credit_risk import challenges
from credit_risk.audit.records import every
from credit_risk.errors import (
    Conflict,
    CreditRiskError,
    EvidenceInvalid,
    ExplanationFailed,
    PackageInvalid,
    RecordingFailed,
    RegistryUnavailable,
)
from credit_risk.serving import activation, challenging, registry
from credit_risk.serving.registry import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO

    from credit_risk.audit.records import AuditLog, Record, RecordKind
    from credit_risk.package import ModelPackage
    from credit_risk.serving.registry import Registered, Registry
    from credit_risk.serving.store import Store
    from credit_risk.settings import Settings

logger = logging.getLogger("credit_risk.registry")

Outcome = Literal["unmoved", "followed", "unavailable", "refused", "unrecorded"]
"""What a look at the registry comes to."""

Follow: TypeAlias = "Callable[[Registered, str | None], Record | None]"
"""Records that a version is what its alias says; None where there is nothing to record."""
ALIASES = (CHAMPION, CHALLENGER)
"""Those that are followed."""


class FollowerObserver(Protocol):
    """Who counts looks at the registry."""

    def registry_asked(self, portfolio: str, alias: str, outcome: Outcome) -> None:
        """The registry was asked what an alias stands for, and this came of it."""


class Follower:
    """Has the registry's aliases followed, once started; see the module's text."""

    def __init__(
        self,
        settings: Settings,
        audit: AuditLog,
        store: Store,
        asked: Registry,
        observer: FollowerObserver | None = None,
    ) -> None:
        self._settings = settings
        self._audit = audit
        self._store = store
        self._registry = asked
        self._observer = observer
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock: TextIO | None = None
        self._refused: dict[str, Registered] = {}
        self._told: dict[str, str] = {}

    def start(self) -> None:
        """Look again and again until `close`, in a thread."""
        self._thread = threading.Thread(target=self._go_on, name="registry", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop, and let another process of this server go on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            self._lock.close()

    def look(self) -> None:
        """Ask the registry once, and follow the aliases that moved."""
        for alias, follow in ((CHAMPION, self._activate), (CHALLENGER, self._challenge)):
            outcome, fault = self._tried(alias, follow)
            # Once for as long as it lasts: asked every half minute, a log would hold little else.
            if fault is not None and fault != self._told.get(alias):
                logger.warning("alias %s is not followed, until further notice: %s", alias, fault)
                self._told[alias] = fault
            elif fault is None and self._told.pop(alias, None) is not None:
                logger.info("alias %s is followed again", alias)
            if self._observer is not None:
                self._observer.registry_asked(self._settings.portfolio, alias, outcome)

    def _tried(self, alias: str, follow: Follow) -> tuple[Outcome, str | None]:
        """What a look comes to, and what stood in the way, if something did."""
        try:
            outcome = self._followed(alias, follow)
            if alias == CHALLENGER:
                self._have_challenger()
        except Conflict:
            return "unmoved", None  # of two servers that saw it the other was first
        except RegistryUnavailable as error:
            return "unavailable", str(error)
        except (RecordingFailed, EvidenceInvalid) as error:
            return "unrecorded", str(error)
        except CreditRiskError as error:
            return "refused", str(error)
        return outcome, None

    def _followed(self, alias: str, follow: Follow) -> Outcome:
        named = self._registry.aliased(self._settings.portfolio, alias)
        if named != self._refused.get(alias):
            self._refused.pop(alias, None)  # it is tried again when the alias comes back to it
        # Before it is asked what was followed last, so that whatever comes later is noticed.
        seen = self._audit.latest(self._settings.portfolio, "activation")
        if named is None or named.number == self._number_followed_last(alias):
            return "unmoved"
        if alias in self._refused:
            # Fetched again it would be what it was, unless somebody tagged it since.
            raise PackageInvalid(f"{named} was refused")
        try:
            registry.fetch(self._registry, named, self._store, self._settings.state_dir)
        except PackageInvalid:
            self._refused[alias] = named
            raise
        record = follow(named, None if seen is None else seen.id)
        if record is None:
            return "unmoved"
        logger.info("alias %s is followed: %s, package %s", alias, named, record.model_version)
        return "followed"

    def _activate(self, named: Registered, seen: str | None) -> Record | None:
        """Have the champion decide, unless another activation came after the one ``seen``."""
        chosen, version = self._settings, named.package_version
        # First of all: who signs may come at any time, and loading a package takes a second.
        activation.check_signed(chosen, self._audit, self._store, version, named.package_sha256)
        try:
            return activation.activate(
                chosen,
                self._audit,
                self._store,
                version,
                action="follow",
                besides={"registry": _where(named, CHAMPION)},
                alongside=partial(activation.nothing_since, chosen.portfolio, seen),
            )
        except (PackageInvalid, ExplanationFailed):
            self._refused[CHAMPION] = named
            raise

    def _challenge(self, named: Registered, _: str | None) -> Record | None:
        """Have the challenger be asked beside who decides; None where it decides itself."""
        chosen, version = self._settings, named.package_version
        if version == activation.wanted_version(chosen, self._audit, self._store):
            return None
        now = challenges.in_force(self._audit, chosen.portfolio)
        share = 0.0 if now is None or now.version != version else now.share
        try:
            return challenging.challenge(
                chosen,
                self._audit,
                self._store,
                version,
                share=share,
                registry=_where(named, CHALLENGER),
            )
        except (PackageInvalid, ExplanationFailed):
            self._refused[CHALLENGER] = named
            raise

    def _have_challenger(self) -> None:
        """Fetch who challenges, if that was said on another server and there is no copy here.

        Of who decides the worker sees to that, see `ActivePackage`; a challenger has nobody else.
        """
        now = challenges.in_force(self._audit, self._settings.portfolio)
        if now is not None and now.version not in self._store.folders(self._settings.portfolio):
            registry.fetch_version(self._registry, self._store, self._settings, now.version)

    def _number_followed_last(self, alias: str) -> str | None:
        """The registry's number of the version that was followed last, None before any."""
        kind: RecordKind = "activation" if alias == CHAMPION else "challenge"
        name = self._settings.portfolio
        for record in every(self._audit, portfolio=name, kind=kind, written=True):
            named: dict[str, Any] | None = record.body.get("registry")
            if named is not None:
                return str(named["version"])
        return None

    def _leads(self) -> bool:
        """Whether this process is the one that asks, from now on until it ends."""
        if self._lock is None:
            self._settings.state_dir.mkdir(parents=True, exist_ok=True)
            file = (self._settings.state_dir / "registry.lock").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._lock = file
        return True

    def _go_on(self) -> None:
        while not self._stop.wait(self._settings.registry_poll_seconds):
            try:
                if self._leads():
                    self.look()
            except Exception:
                # What nobody foresaw is no reason not to look again.
                logger.exception("the registry could not be followed")


def package_to_serve(settings: Settings, audit: AuditLog, store: Store) -> ModelPackage:
    """What a server is to decide with that starts now, after a look at the registry if it has one.

    Raises:
        PackageNotFound, PackageInvalid, ExplanationFailed, KeysInvalid, RecordingFailed: see
            `activation.wanted_version` and `activation.load_to_decide`.
        RegistryUnavailable: its package is not here, and the registry does not answer.
    """
    with contextlib.ExitStack() as opened:
        asked = registry.connect(settings)
        fetch = None
        if asked is not None:
            opened.callback(asked.close)
            fetch = partial(registry.fetch_version, asked, store, settings)
            if settings.model_version is None:
                Follower(settings, audit, store, asked).look()
        version = activation.wanted_version(settings, audit, store)
        return activation.load_or_fetch(settings, audit, store, version, fetch)


def _where(named: Registered, alias: str) -> dict[str, str]:
    """What a record says of the version in the registry that it came from."""
    return {"name": named.name, "version": named.number, "alias": alias}
