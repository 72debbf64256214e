"""A log, and a package whose files are there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from credit_risk import package
from credit_risk.audit.log import SqlAuditLog
from tests import toys
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from credit_risk.package import ModelPackage


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlAuditLog]:
    """An audit log in a file."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as opened:
        yield opened


@pytest.fixture
def made(tmp_path: Path) -> ModelPackage:
    """A toy package whose files are there."""
    return package.load(toys.write_package(tmp_path / "packages", "trees"))
