"""A server to measure: a folder under ``peers`` that says how to install, start and ask it."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from credit_risk import documents
from credit_risk.documents import Document

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / ".tools" / "peers"

LoadName = Literal["predict", "declined", "batch"]
FormatName = Literal["record", "dataframe", "tensors"]
Connections = Annotated[int, Field(ge=1, le=1_000)]


class NotInstalled(Exception):
    """A peer's environment cannot be made."""


class Description(Document):
    """``peer.yaml``.

    Words of ``prepare`` and ``command`` and values of ``environment`` may hold ``{here}`` (the
    peer's folder), ``{root}`` (the repository), ``{scratch}`` (an empty folder of its own),
    ``{pipeline}`` (a joblib file), ``{packages}`` and ``{packages_approving}`` (folders of model
    packages), ``{collector}`` (the URL of a collector of traces), and ``{port}``, ``{port2}``,
    ``{port3}``.

    ``title`` may hold ``{version}``, that of ``package``. A server without ``package`` is this
    project, in the environment at hand. ``scores`` is false where the answer has no PD that means
    anything. ``records`` says whether the record database must hold decisions at the end, or none;
    null: there is no such database. ``loads`` names the numbers of connections for each kind of
    load.
    """

    title: str
    package: str | None = None
    scores: bool = True
    records: bool | None = None
    prepare: tuple[str, ...] = ()
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    environment: dict[str, str] = Field(default_factory=dict)
    format: FormatName = "record"
    path: str
    batch_path: str | None = None
    loads: dict[LoadName, tuple[Connections, ...]]


class Peer:
    """One folder under ``peers``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.description = documents.read(Description, folder / "peer.yaml")

    @property
    def _requirements(self) -> Path:
        return self.folder / "requirements.txt"

    @property
    def bin(self) -> Path:
        """Where its programs are: an environment of its own, or this one for our own server."""
        if self.description.package is None:
            return Path(sys.executable).parent
        return ENVIRONMENTS / self.name / "bin"

    @cached_property
    def title(self) -> str:
        """What it is called in tables, with its version."""
        if self.description.package is None:
            return self.description.title
        return self.description.title.format(version=self.version(self.description.package))

    def version(self, package: str) -> str:
        """The version of a package in its requirements.

        Raises:
            NotInstalled: they do not name it.
        """
        text = self._requirements.read_text(encoding="utf-8")
        found = re.search(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)
        if found is None:
            msg = f"{self.name}: requirements.txt does not name {package}"
            raise NotInstalled(msg)
        return found.group(1)

    def install(self) -> None:
        """Make its environment as its requirements say, unless it is there.

        Raises:
            NotInstalled: it cannot be made; with what the installer said.
        """
        if self.description.package is None:
            return
        digest = hashlib.sha256(self._requirements.read_bytes()).hexdigest()
        environment = ENVIRONMENTS / self.name
        stamp = environment / "requirements.sha256"
        if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
            return
        shutil.rmtree(environment, ignore_errors=True)
        uv = str(Path(sys.executable).parent / "uv")
        python = str(environment / "bin" / "python")
        for command in (
            [uv, "venv", "--quiet", "--python", sys.executable, str(environment)],
            [
                *(uv, "pip", "sync", "--quiet", "--python", python),
                *("--compile-bytecode", "--only-binary", ":all:", "--require-hashes"),
                str(self._requirements),
            ],
        ):
            done = subprocess.run(  # noqa: S603 - our own environment's uv
                command, capture_output=True, text=True, check=False
            )
            if done.returncode:
                # After the warnings; one sentence over several lines.
                said = done.stderr[max(done.stderr.find("error:"), 0) :]
                raise NotInstalled(f"{self.name}: {' '.join(said.split())}")
        stamp.write_text(digest, encoding="ascii")


def all_peers(folder: Path = PEERS) -> list[Peer]:
    """Every peer, this server first.

    Raises:
        PortfolioInvalid: a description is wrong; names the file and the place in it.
    """
    found = [Peer(path.parent) for path in sorted(folder.glob("*/peer.yaml"))]
    return sorted(found, key=lambda peer: peer.description.package is not None)
