"""Logs to tamper with."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from credit_risk.audit import signatures, verification
from credit_risk.audit.log import SqlAuditLog
from tests.audit.tampering import Case, filled
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def case(any_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """A log on each kind of database, with three checkpoints."""
    for module in (verification, signatures):
        monkeypatch.setattr(module, "_CHUNK", 7)
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        yield filled(log)


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """The same on SQLite only."""
    for module in (verification, signatures):
        monkeypatch.setattr(module, "_CHUNK", 7)
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as log:
        yield filled(log)
