"""docs/operation.md: what is to be pasted works, and fits the settings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from contextlib import closing
from pathlib import Path

from credit_risk.audit.log import SqlAuditLog
from credit_risk.settings import Settings
from tests.audit.test_log import made
from tests.sealing import SEALING

PAGE = (Path(__file__).parents[1] / "docs" / "operation.md").read_text(encoding="utf-8")


def block(kind: str, containing: str) -> str:
    """The code block of that kind with that text in it."""
    blocks: list[str] = re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    (found,) = [text for text in blocks if containing in text]
    return found


def test_the_backup_is_whole_and_can_be_read(tmp_path: Path) -> None:
    """Made while the log is open, with records that are in the write-ahead log only."""
    record = made(portfolio="personal-loans")
    with closing(SqlAuditLog(Settings(state_dir=tmp_path / "var").audit_url, SEALING)) as log:
        log.append([record]).result()

        told = subprocess.run(  # noqa: S603 - the page's own commands
            ["/bin/sh", "-eu", "-c", block("sh", "backup")],
            cwd=tmp_path,
            env={"PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert record.id in told


def test_the_service_starts_the_server_with_settings_that_exist() -> None:
    """Its state directory is the one that systemd makes."""
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block("ini", "ExecStart"))
    service = unit["Service"]

    assert service["ExecStart"].endswith("/.venv/bin/credit-risk serve")
    assert service["Environment"] == f"STATE_DIR=/var/lib/{service['StateDirectory']}"


def test_the_proxy_lets_through_what_the_server_takes() -> None:
    """The largest body, the longest wait, and no page that is not for callers."""
    proxy = block("nginx", "proxy_pass")
    settings = Settings.model_construct()

    size = re.search(r"client_max_body_size (\d+)k;", proxy)
    wait = re.search(r"proxy_read_timeout (\d+)s;", proxy)
    paths = re.search(r"location ~ (\S+) ", proxy)
    assert size is not None
    assert wait is not None
    assert paths is not None
    assert int(size.group(1)) * 1024 == settings.body_limit
    assert int(wait.group(1)) > settings.batch_deadline_seconds
    through = re.compile(paths.group(1))
    for path in ("/predict", "/predict/batch", "/predict/explain", "/explain", "/schema"):
        assert through.match(path)
    for path in ("/metrics", "/health", "/readyz", "/docs", "/openapi.json"):
        assert not through.match(path)
