"""The signer: makes checkpoints of a log, by itself in a thread and whenever one is asked for."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from credit_risk.audit.checkpoints import Statement, head, newest, sign
from credit_risk.audit.rollback import Seen
from credit_risk.errors import CreditRiskError, EvidenceInvalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from credit_risk.audit.checkpoints import Checkpoint
    from credit_risk.audit.log import SqlAuditLog

logger = logging.getLogger("credit_risk.audit.checkpoints")
"""Named for what it tells of: lines kept elsewhere are looked for by that name."""


class Signer:
    """Makes checkpoints of a log: by itself in a thread, and whenever one is asked for.

    All processes that write a log may have one; together they make one each ``seconds``, as long
    as something is recorded. Each checkpoint is a line of the process's log, too, so that logs
    that are kept elsewhere hold what the database can be compared with.

    Args:
        log: whose records are signed.
        key: what signs.
        seconds: time from one checkpoint to the next.
        made: told of each one made here.
        failed: told of each time that none could be made.
        checked: told each time the records since the checkpoint before were looked at, whether
            they are a chain, behind all that was seen signed.
        note: file that the newest checkpoint seen is noted in; see `credit_risk.audit.rollback`.
    """

    def __init__(
        self,
        log: SqlAuditLog,
        key: Ed25519PrivateKey,
        seconds: float,
        *,
        made: Callable[[Checkpoint], None],
        failed: Callable[[], None],
        checked: Callable[[bool], None] = lambda _: None,
        note: Path | None = None,
    ) -> None:
        self.log = log
        self.key = key
        self._seconds = seconds
        self._made = made
        self._failed = failed
        self._checked = checked
        self._failing = False
        self._seen = Seen(log, key.public_key(), note)
        self._signing = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def start(self) -> None:
        """Begin to make them."""
        self._thread.start()

    def close(self) -> None:
        """Make the last one. Before the log is closed."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._failing:
            self._try(self.sign)

    def sign(self) -> None:
        """Have everything under a checkpoint that is on record by now.

        Raises:
            EvidenceInvalid: see `credit_risk.audit.checkpoints.sign` and `Seen.confirm`.
            RecordingFailed: the database fails.
        """
        with self._signing:
            try:
                self._sign_all()
            except EvidenceInvalid:
                self._checked(False)
                raise
            self._checked(True)

    def _sign_all(self) -> None:
        # Up to what is on record now: under load there is always more, and the next round's.
        with self.log.reading() as connection:
            upto = head(connection).sequence
        self._seen.confirm()
        while (checkpoint := sign(self.log, self.key)) is not None:
            self._seen.keep(checkpoint)
            self._made(checkpoint)
            logger.info(
                "checkpoint",
                extra={
                    "checkpoint": checkpoint.number,
                    "last": checkpoint.last,
                    "root": Statement.read(checkpoint.statement).root,
                    **checkpoint.to_json(),
                },
            )
            if checkpoint.last >= upto:
                break

    def _run(self) -> None:
        # What was taken away while nobody looked is told now, and not when the next one is due.
        self._try(self._confirm)
        wait = self._wait()
        while not self._stop.wait(wait):
            wait = self._wait()
            if wait == 0.0:
                self._try(self.sign)
                wait = self._seconds

    def _confirm(self) -> None:
        with self._signing:
            self._seen.confirm()

    def _wait(self) -> float:
        """Seconds until the next one is due, whoever made the last."""
        try:
            with self.log.reading() as connection:
                last = newest(connection)
            if last is None:
                return 0.0
            age = time.time() - Statement.read(last.statement).time / 1e6
        except Exception as error:  # noqa: BLE001 - `_fail` logs it
            self._fail(error)
            return self._seconds
        return min(max(self._seconds - age, 0.0), self._seconds)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001 - `_fail` logs it
            self._fail(error)
        else:
            self._failing = False

    def _fail(self, error: Exception) -> None:
        # Records go on without: the next checkpoint is about these as well.
        self._failing = True
        self._failed()
        if isinstance(error, EvidenceInvalid):
            self._checked(False)
            logger.error("the chain of records is broken, no checkpoint: %s", error)
        elif isinstance(error, CreditRiskError):
            logger.error("no checkpoint: %s", error)
        else:
            # What nobody foresaw is no reason to sign nothing from now on.
            logger.error("no checkpoint", exc_info=error)
