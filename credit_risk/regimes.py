"""The regime: what a law asks of notices, records and evidence, as a versioned data file.

Laws change, and differ; so no citation, period or wording of theirs is in the code. A regime is
the file ``ID.yaml`` in the folder of regimes, and what is made with it names its version and
digest. No regime file is legal advice, and each says so.
"""

from __future__ import annotations

import re
import string
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from credit_risk import documents
from credit_risk.documents import Document
from credit_risk.errors import PortfolioInvalid, RegimeNotFound

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Evidence = Literal[
    "model-card",
    "data-provenance",
    "performance",
    "calibration",
    "reasons-method",
    "fairness",
    "policy",
    "approvals",
    "activation-history",
    "decisions",
    "reviews",
    "record-integrity",
    "replay",
    "drift",
    "outcomes",
    "regime",
]
"""What a section may ask an evidence pack for."""

Identifier = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Words = Annotated[str, Field(min_length=3)]
_PLACEHOLDER = re.compile(r"[a-z]+(_[a-z]+)*")


class Source(Document):
    """A text that the regime rests on."""

    id: Identifier
    citation: Words
    title: Words
    url: Annotated[str, Field(pattern=r"^https://")] | None = None


class Notification(Document):
    """When an applicant is to be told: ``days`` after what is counted from, None for no number."""

    days: Annotated[int, Field(ge=1, le=365)] | None
    counted_from: Literal["application", "decision"]
    words: Words
    source: Identifier


class Retention(Document):
    """How long records are to be kept, in months; None where the law sets no number."""

    months: Annotated[int, Field(ge=1, le=600)] | None
    words: Words
    source: Identifier


class MostReasons(Document):
    """How many principal reasons a notice gives at most."""

    number: Annotated[int, Field(ge=1, le=20)]
    words: Words
    source: Identifier


class Statement(Document):
    """What a notice has to say besides its reasons.

    ``text`` has ``{placeholders}`` that the lender fills; ``when`` is in which case it has to be
    said, None for always.
    """

    id: Identifier
    text: Words
    when: Words | None = None
    source: Identifier

    @model_validator(mode="after")
    def _placeholders_are_names(self) -> Statement:
        for _, name, form, conversion in string.Formatter().parse(self.text):
            if name is None:
                continue
            if not _PLACEHOLDER.fullmatch(name) or form or conversion:
                msg = "a placeholder is a name in small letters and underscores"
                raise ValueError(msg)
        return self

    @property
    def placeholders(self) -> list[str]:
        """What the lender fills, in order, each once."""
        names = (name for _, name, _, _ in string.Formatter().parse(self.text))
        return list(dict.fromkeys(name for name in names if name is not None))


class Section(Document):
    """A section of the regime that an evidence pack is mapped to, by what it ``requires``."""

    id: Identifier
    title: Words
    requires: Annotated[tuple[Evidence, ...], Field(min_length=1)]


class OtherRegime(Document):
    """A regime that may apply too, and what this file has of it."""

    id: Identifier
    title: Words
    note: Words


class Regime(Document):
    """A regime file; ``as_of`` is the day up to which its law was looked at."""

    id: Identifier
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Words
    as_of: date
    caveat: Words
    sources: Annotated[tuple[Source, ...], Field(min_length=1)]
    notification: Notification
    record_retention: Retention
    most_reasons: MostReasons
    statements: Annotated[tuple[Statement, ...], Field(min_length=1)]
    forbidden_wordings: tuple[Words, ...] = ()
    sections: Annotated[tuple[Section, ...], Field(min_length=1)]
    other_regimes: tuple[OtherRegime, ...] = ()

    @model_validator(mode="after")
    def _names_are_known_and_used_once(self) -> Regime:
        for name, parts in (
            ("sources", self.sources),
            ("statements", self.statements),
            ("sections", self.sections),
            ("other_regimes", self.other_regimes),
        ):
            ids = [part.id for part in parts]
            if len(set(ids)) != len(ids):
                msg = f"{name}: ids are not unique"
                raise ValueError(msg)
        cited: Iterable[tuple[str, str]] = (
            ("notification", self.notification.source),
            ("record_retention", self.record_retention.source),
            ("most_reasons", self.most_reasons.source),
            *((f"statements: {s.id}", s.source) for s in self.statements),
        )
        known = {source.id for source in self.sources}
        for place, source in cited:
            if source not in known:
                msg = f"{place}: {source} is not one of the sources"
                raise ValueError(msg)
        return self

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of what the file says, whatever its layout."""
        return documents.digest(self)

    def forbidden_in(self, text: str) -> str | None:
        """The first forbidden wording that ``text`` has, in whatever case, or None."""
        folded = " ".join(text.casefold().split())
        return next((w for w in self.forbidden_wordings if w.casefold() in folded), None)


def load(root: Path, name: str) -> Regime:
    """Load the regime ``name`` from its file under ``root``.

    Raises:
        RegimeNotFound: there is no such file; names those that there are.
        PortfolioInvalid: the file is wrong; names the file and the place in it.
    """
    path = root / f"{name}.yaml"
    if name not in names(root):
        known = ", ".join(names(root)) or "none"
        msg = f"no regime {name!r} under {root} (there are: {known})"
        raise RegimeNotFound(msg)
    regime = documents.read(Regime, path)
    if regime.id != name:
        msg = f"{path}: id: the file says it is regime {regime.id!r}"
        raise PortfolioInvalid(msg)
    return regime


def names(root: Path) -> list[str]:
    """Names of the regimes under ``root``."""
    return sorted(path.stem for path in root.glob("*.yaml"))
