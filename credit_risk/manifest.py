"""The manifest of a package: every file with its SHA-256, and by that the package's version.

Apart from `credit_risk.package`, so that who only asks whether a package is whole, as a rollback
does, waits for none of what it takes to load its model.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from credit_risk import documents
from credit_risk.documents import Document
from credit_risk.errors import PackageInvalid, PortfolioInvalid

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1
MANIFEST = "manifest.json"
VERSION_DIGITS = 12
VERSION_TAG = "package_version"
"""By which tag a registry's version says which package it is; the next one is its digest."""
DIGEST_TAG = "package_sha256"
STATUS_TAG = "validation_status"
"""What people or the gate found, for people to see."""


class Manifest(Document):
    """Names every file of a package with its SHA-256."""

    format: int
    portfolio: str
    files: dict[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, and so of the whole package."""
        return documents.digest(self)

    @property
    def version(self) -> str:
        """The package version: derived from the content."""
        return self.digest[:VERSION_DIGITS]

    @property
    def tags(self) -> dict[str, str]:
        """By what a registry's version says which package it is."""
        return {VERSION_TAG: self.version, DIGEST_TAG: self.digest}


class _Versioned(BaseModel):
    """What of a policy says which it is."""

    version: str


def read_manifest(path: Path) -> Manifest:
    """Read a package's manifest.

    Raises:
        PackageInvalid: there is none, or it is not one of ours.
    """
    manifest = read_json(Manifest, path / MANIFEST)
    if manifest.format != FORMAT:
        msg = f"{path.name}: package format {manifest.format}, this server reads {FORMAT}"
        raise PackageInvalid(msg)
    return manifest


def verify(path: Path) -> Manifest:
    """Compare every file with its sum in the manifest.

    Raises:
        PackageInvalid: a file is missing, altered, or not in the manifest; names the file.
    """
    manifest = read_manifest(path)
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()} - {
        MANIFEST
    }
    extra = sorted(present - set(manifest.files))
    if extra:
        msg = f"package {manifest.version}: {extra[0]} is not in the manifest"
        raise PackageInvalid(msg)
    for name, expected in manifest.files.items():
        if name not in present:
            msg = f"package {manifest.version}: {name} is missing"
            raise PackageInvalid(msg)
        if hashlib.sha256((path / name).read_bytes()).hexdigest() != expected:
            msg = f"package {manifest.version}: {name} was altered (its SHA-256 does not match)"
            raise PackageInvalid(msg)
    return manifest


def versioned(version: str, sha256: str) -> str:
    """How a policy is called: its version and the start of its file's SHA-256."""
    return f"{version}+{sha256[:8]}"


def policy_version(path: Path, manifest: Manifest) -> str:
    """How the policy of a package that was verified is called; see `versioned`.

    Raises:
        PackageInvalid: its policy says no version.
    """
    try:
        policy = documents.read(_Versioned, path / "policy.yaml")
    except PortfolioInvalid as error:
        msg = f"package {manifest.version}: {error}"
        raise PackageInvalid(msg) from error
    return versioned(policy.version, manifest.files["policy.yaml"])


D = TypeVar("D", bound=BaseModel)


def read_json(kind: type[D], path: Path) -> D:
    """A JSON file of a package.

    Raises:
        PackageInvalid: it is not there, or not as it should be; names the file and the place.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        msg = f"{path.name}: cannot be read: {error.strerror}"
        raise PackageInvalid(msg) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        msg = f"{path.name}: {place}: {first['msg']}"
        raise PackageInvalid(msg) from error
