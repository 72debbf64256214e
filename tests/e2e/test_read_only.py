"""As in a hardened container: nobody's process, its code read-only, one folder to write to."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from loadtests import server
from tests.e2e.conftest import ROOT, STOP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

NOBODY = 54_321
"""A user id without a name, as orchestrators give them out."""
SHIPPED = ("service.py", "credit_risk", "monitoring", "portfolios", "packages", "regimes")


def _interpreter() -> str:
    """A Python that nobody may run; the one of the tests may lie in somebody's home."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{version}"):
        try:
            subprocess.run([path, "-c", ""], user=NOBODY, cwd="/", check=True)  # noqa: S603 - as above
        except OSError:
            continue
        return path
    pytest.skip(f"nobody cannot run {sys.executable}")


@pytest.fixture
def root() -> Iterator[Path]:
    """The shipped files in a folder that all can read and root alone can write."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process as somebody else")
    # pytest's own folders are closed to others.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        for entry in SHIPPED:
            source = ROOT / entry
            if source.is_dir():
                ignored = shutil.ignore_patterns("*.nbc", "*.nbi")
                shutil.copytree(source, folder / entry, ignore=ignored)
            else:
                shutil.copy(source, folder)
        yield folder


def test_it_serves_where_it_can_write_nothing_but_its_state(root: Path, tmp_path: Path) -> None:
    """No home, no folder beside the code; what it compiled is kept for its next start."""
    state = root / "state"
    state.mkdir()
    os.chown(state, NOBODY, NOBODY)
    port = server.free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PORT": str(port),
        "WORKERS": "1",
        "STATE_DIR": str(state),
    }
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [_interpreter(), "-m", "credit_risk.cli", "serve"],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env=environment,
            cwd=root,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        found = server.when_ready(process, f"http://127.0.0.1:{port}", log)
        example = httpx.get(f"{found.url}/schema").json()["examples"][0]
        assert httpx.post(f"{found.url}/predict", json=example).status_code == 200
        for command in (f"models activate {found.version}", "replay --all", "simulate --rows 1"):
            subprocess.run(  # noqa: S603 - our own command
                [_interpreter(), "-m", "credit_risk.cli", *command.split()],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                env=environment,
                cwd=root,
                check=True,
            )
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)

    kept = state / f"kernels-{NOBODY}"
    assert list(kept.rglob("*.nbc"))
    written = {path for path in root.rglob("*") if path.stat().st_uid == NOBODY}
    assert all(path.is_relative_to(state) for path in written)
