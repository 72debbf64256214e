"""Topics of an evidence pack, and the statements in them, each with what it rests on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from credit_risk.evidence.folders import PACKAGE, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from credit_risk.package import ModelPackage

UNRECORDED = "Nothing is on record yet."


@dataclass(frozen=True, slots=True)
class Rests:
    """What a statement rests on: a file of the pack or records, and their SHA-256."""

    on: str
    sha256: str


@dataclass(slots=True)
class Topic:
    """What there is to show of one thing; ``missing`` says why there is nothing.

    ``findings`` are what contradicts it, for the top of the pack; ``figures`` are numbers that
    sum it up, each under a label.
    """

    statements: list[tuple[str, Rests]] = field(default_factory=list)
    tables: list[tuple[list[str], list[list[Any]]]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    missing: str | None = None
    findings: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def say(self, rests: Rests, *texts: str) -> None:
        """Add statements that rest on the same."""
        self.statements += [(text, rests) for text in texts]

    def to_json(self, title: str) -> dict[str, Any]:
        """The topic as JSON."""
        return {
            "title": title,
            "missing": self.missing,
            "statements": [
                {"text": text, "rests_on": rests.on, "sha256": rests.sha256}
                for text, rests in self.statements
            ],
            "tables": [{"columns": columns, "rows": rows} for columns, rows in self.tables],
            "images": self.images,
        }


def file_of(package: ModelPackage, name: str) -> Rests:
    """A file of the package, as what a statement rests on."""
    return Rests(f"{PACKAGE}/{name}", package.digests[name])


def manifest_of(package: ModelPackage) -> Rests:
    """The manifest of the package, which has the sums of its files."""
    return Rests(f"{PACKAGE}/manifest.json", sha256_of(package.path / "manifest.json"))


def digest_of(hashes: Iterable[bytes]) -> str:
    """SHA-256 of hashes, one behind the other."""
    total = hashlib.sha256()
    for one in hashes:
        total.update(one)
    return total.hexdigest()


def short(value: object) -> str:
    """A number to four digits; anything else as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
