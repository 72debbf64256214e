"""Compiled kernels are kept where this user, and nobody else, may write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from credit_risk import kernels

SOURCE = Path("/proc/self")
"""A folder that nobody can write, not even root."""


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that what a test leaves in the environment is undone.
    monkeypatch.setenv(kernels.VARIABLE, "")


def test_they_are_kept_beside_the_source_where_it_can_be_written(tmp_path: Path) -> None:
    """As Python does with its own; the state directory is not even made."""
    source = tmp_path / "source"
    source.mkdir()

    kernels.keep_compiled(tmp_path / "state", source)

    assert os.environ[kernels.VARIABLE] == ""
    assert not (tmp_path / "state").exists()


def test_else_under_the_state_directory_for_this_user_alone(tmp_path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        kernels.keep_compiled(tmp_path / "state", SOURCE)
    finally:
        os.umask(before)

    folder = Path(os.environ[kernels.VARIABLE])
    assert folder == tmp_path / "state" / f"kernels-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_named_from_outside_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may know a better place."""
    monkeypatch.setenv(kernels.VARIABLE, str(tmp_path / "elsewhere"))

    kernels.keep_compiled(tmp_path / "state", SOURCE)

    assert os.environ[kernels.VARIABLE] == str(tmp_path / "elsewhere")


def test_the_next_start_finds_what_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is thrown away only where others could have written it."""
    folder = tmp_path / f"kernels-{os.geteuid()}"
    kernels.keep_compiled(tmp_path, SOURCE)
    (folder / "kernel.nbc").write_bytes(b"code")

    monkeypatch.setenv(kernels.VARIABLE, "")
    kernels.keep_compiled(tmp_path, SOURCE)

    assert (folder / "kernel.nbc").exists()

    folder.chmod(0o770)
    monkeypatch.setenv(kernels.VARIABLE, "")
    kernels.keep_compiled(tmp_path, SOURCE)

    assert list(folder.iterdir()) == []
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_what_is_no_folder_is_not_followed(tmp_path: Path) -> None:
    """A link that somebody laid there beforehand leads to code of theirs."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (tmp_path / f"kernels-{os.geteuid()}").symlink_to(theirs)

    with pytest.raises(OSError, match="symbolic link"):
        kernels.keep_compiled(tmp_path, SOURCE)
