"""Approvals: who answers for a package signs its digest, and anybody can check the signature.

A statement is canonical JSON (keys sorted, no spaces), an object of

- ``purpose``: `PURPOSE`, so that nothing that a key signs for another reason is an approval,
- ``portfolio``, ``package``: whose package it is, and its version,
- ``package_sha256``: its digest, and so of every file in it,
- ``approver``: who approves, by the name in the file of approvers,
- ``time``: microseconds since the epoch, by the approver's clock.

Its signature is Ed25519 over its bytes. Signatures lie beside a package, not within: its version
stays what it is, and they go where it goes. Each is on record, too, as a record of kind "approval".
Either place may hold anything, as whoever writes there checks nothing: what is no approval counts
for nobody, is counted, and never hinders one that is.

A signature says nothing about when a package may decide: that is the gate's to say, see
`credit_risk.promotion`. It holds until its key is taken from the file of approvers.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple

from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel, Field, RootModel, ValidationError

from credit_risk import documents, environment
from credit_risk.audit import keys
from credit_risk.audit.records import unrequested
from credit_risk.documents import Document
from credit_risk.errors import ApprovalRefused, KeysInvalid, PackageInvalid, PortfolioInvalid
from credit_risk.manifest import read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from credit_risk.audit.records import AuditLog, Filters, Record, Records
    from credit_risk.package import ModelPackage

logger = logging.getLogger("credit_risk.approvals")

PURPOSE: Final = "credit-risk: I answer for this package"
MOST = 100
"""Signatures beside one package, besides its approvers'."""
BYTES_MOST = 2 << 20
"""A larger file holds no signatures."""
RECORDS_MOST = 1_000
"""Approvals of one package on record that are looked at, the newest."""

Name = Annotated[str, Field(pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]{0,98}[^\s\x00-\x1f])?$")]


class Statement(Document):
    """What an approver signs; see the module's text."""

    purpose: Literal["credit-risk: I answer for this package"]
    portfolio: str
    package: str
    package_sha256: str
    approver: str
    time: int

    def text(self) -> str:
        """Its canonical form, which is what is signed."""
        values = self.model_dump(mode="json")
        return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Signature(Document):
    """A statement, its signature in base64, and the id of the key, see `keys.key_id`."""

    statement: Annotated[str, Field(max_length=1_000)]
    signature: Annotated[str, Field(max_length=200)]
    key_id: Annotated[str, Field(max_length=64)]


class Signatures(NamedTuple):
    """What lies beside a package: signatures, and how much that is none, a whole file as one."""

    found: tuple[Signature, ...] = ()
    junk: int = 0


class Signed(NamedTuple):
    """Who has approved a package: a signature of each by name; ``others`` count for nobody."""

    by: dict[str, Signature]
    others: int = 0

    @property
    def key_ids(self) -> dict[str, str]:
        """The ids of their keys by their names."""
        return {name: signature.key_id for name, signature in self.by.items()}

    def told(self) -> str:
        """Their names, and how many signatures are nobody's, in words."""
        names = ", ".join(self.by) or "nobody"
        if not self.others:
            return names
        return f"{names}; signatures that count for nobody: {self.others}"


class _Beside(BaseModel):
    """The file beside a package, before anybody looked at what is in it."""

    signatures: tuple[Any, ...]


class _File(RootModel[dict[Name, str | tuple[str, ...]]]):
    """The file of approvers: each name with a public key, or several of one person."""


@dataclass(frozen=True, slots=True)
class Approvers:
    """Who may approve: names and public keys, by the keys' ids."""

    keys: dict[str, tuple[str, Ed25519PublicKey]]

    @property
    def names(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys(name for name, _ in self.keys.values()))

    def name_of(self, key: Ed25519PublicKey) -> str | None:
        """Whose key it is; None if nobody's here."""
        name, known = self.keys.get(keys.key_id(key), (None, None))
        return name if known == key else None

    def valid(self, signatures: Iterable[Signature], portfolio: str, package_sha256: str) -> Signed:
        """Who has approved a package, each person once."""
        by: dict[str, Signature] = {}
        others = 0
        for signature in dict.fromkeys(signatures):
            name = self._signer(signature, portfolio, package_sha256)
            if name is None:
                others += 1
            else:
                by.setdefault(name, signature)
        return Signed(by, others)

    def _signer(self, signature: Signature, portfolio: str, package_sha256: str) -> str | None:
        """Who approved that package by this signature; None where it is no approval of it."""
        name, key = self.keys.get(signature.key_id, (None, None))
        statement = _stated(signature)
        if name is None or key is None or statement is None:
            return None
        about = (statement.approver, statement.portfolio, statement.package_sha256)
        if about != (name, portfolio, package_sha256):
            return None
        try:
            key.verify(
                base64.b64decode(signature.signature, validate=True), signature.statement.encode()
            )
        except (InvalidSignature, ValueError):  # what is no base64 is no signature
            return None
        return name


def approvers(file: Path) -> Approvers:
    """Read the file of approvers: YAML, names with public keys, in PEM or as PEM's line alone.

    Raises:
        KeysInvalid: the file cannot be read, a key is none of Ed25519, or two names share one, or
            are one but for capitals.
    """
    try:
        given = documents.read(_File, file).root
    except PortfolioInvalid as error:
        raise KeysInvalid(str(error)) from error
    known: dict[str, tuple[str, Ed25519PublicKey]] = {}
    names: dict[str, str] = {}
    for name, texts in given.items():
        if names.setdefault(name.casefold(), name) != name:
            raise KeysInvalid(f"{file}: {name} is there twice, but for capitals")
        for text in (texts,) if isinstance(texts, str) else texts:
            try:
                key = keys.public_key(_pem(text))
            except KeysInvalid as error:
                raise KeysInvalid(f"{file}: {name}: {error}") from error
            whose, _ = known.setdefault(keys.key_id(key), (name, key))
            if whose != name:
                raise KeysInvalid(f"{file}: {whose} and {name} have the same key")
    return Approvers(known)


def sign(
    key: Ed25519PrivateKey,
    approver: str,
    *,
    portfolio: str,
    package: str,
    package_sha256: str,
    time: int,
) -> Signature:
    """Approve a package; see `Statement` for the arguments."""
    text = Statement(
        purpose=PURPOSE,
        portfolio=portfolio,
        package=package,
        package_sha256=package_sha256,
        approver=approver,
        time=time,
    ).text()
    signed = base64.b64encode(key.sign(text.encode())).decode()
    return Signature(statement=text, signature=signed, key_id=keys.key_id(key.public_key()))


def check_new(known: Approvers, key: Ed25519PublicKey, already: Signed, version: str) -> str:
    """The name of who is to approve a package with a key.

    Args:
        known: who may.
        key: the public part.
        already: who has, see `Approvers.valid`.
        version: of the package.

    Raises:
        ApprovalRefused: nobody's key, or that person has approved it before.
    """
    name = known.name_of(key)
    if name is None:
        told = f"the key {keys.key_id(key)} is none of those in the file of approvers"
        raise ApprovalRefused(told)
    if name in already.by:
        raise ApprovalRefused(
            f"{name} has approved package {version} before, and counts once; somebody else has to"
        )
    return name


def beside(folder: Path) -> Path:
    """The file of a package's signatures, beside its folder."""
    return folder.with_name(f"{folder.name}.signatures.json")


def read(folder: Path) -> Signatures:
    """The signatures beside a package, whether they hold or not; none where there is no file.

    Raises:
        PackageInvalid: the file cannot be read.
    """
    file = beside(folder)
    try:
        with file.open("rb") as opened:
            content = opened.read(BYTES_MOST + 1)
    except FileNotFoundError:
        return Signatures()
    except OSError as error:
        raise PackageInvalid(f"{file}: cannot be read: {error.strerror}") from error
    try:
        entries = _Beside.model_validate_json(content).signatures
    except ValidationError:
        return Signatures(junk=1)
    found = []
    for entry in entries:
        with suppress(ValidationError):
            found.append(Signature.model_validate(entry))
    return Signatures(tuple(found), len(entries) - len(found))


def add(folder: Path, signatures: Iterable[Signature], approvers_file: Path | None = None) -> None:
    """Put signatures beside a package, to those that are there; the file is whole at any time.

    Of those that are no approver's `MOST` stay, the first ones, so that no number of them keeps an
    approval out.

    Args:
        folder: of the package.
        signatures: those to add.
        approvers_file: names the approvers, where anybody may approve.

    Raises:
        PackageInvalid: see `read`.
        KeysInvalid: the file of approvers is wrong.
    """
    before = read(folder)
    both = tuple(dict.fromkeys((*before.found, *signatures)))
    if both == before.found:
        return
    kept = both
    if len(both) > MOST:
        manifest = read_manifest(folder)
        known = Approvers({}) if approvers_file is None else approvers(approvers_file)
        approved = known.valid(both, manifest.portfolio, manifest.digest).by.values()
        others = [one for one in both if one not in approved]
        kept = (*approved, *others[:MOST])
    left_out = before.junk + len(both) - len(kept)
    if left_out:
        logger.warning("%s: %d signatures that are nobody's are left out", beside(folder), left_out)
    text = json.dumps({"signatures": [one.model_dump() for one in kept]}, indent=1)
    descriptor, staged = tempfile.mkstemp(prefix=".signing-", dir=folder.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
        Path(staged).chmod(0o644)
        Path(staged).replace(beside(folder))
    except OSError:
        Path(staged).unlink(missing_ok=True)
        raise


def record(log: AuditLog, package: ModelPackage, signature: Signature, now: int) -> Record:
    """Put an approval on record; returns it.

    Args:
        log: where.
        package: what is approved.
        signature: see `sign`.
        now: microseconds since the epoch.

    Raises:
        PackageInvalid: the signature is of nothing that could be approved.
        RecordingFailed: it is not known to be on record.
    """
    statement = _stated(signature)
    if statement is None:
        raise PackageInvalid(f"package {package.version}: what was signed is no approval")
    made = unrequested(
        "approval",
        package.portfolio,
        {
            "package_sha256": package.digest,
            "approver": statement.approver,
            "key_id": signature.key_id,
            "signature": signature.model_dump(mode="json"),
            "by": environment.user(),
        },
        model_version=package.version,
        policy_version=package.policy_version,
        at=now,
    )
    log.append([made]).result()
    return made


def recorded(records: Records, portfolio: str, version: str) -> Signatures:
    """The signatures of a package that are on record; what was altered there is none.

    Raises:
        RecordingFailed: the record database cannot be read.
    """
    about: Filters = {"portfolio": portfolio, "kind": "approval", "model_version": version}
    there = records.find(limit=RECORDS_MOST, **about)
    found = []
    for record in there:
        with suppress(ValidationError):  # altered, or of another version of this program
            found.append(Signature.model_validate(record.body.get("signature")))
    return Signatures(tuple(found), len(there) - len(found))


def _stated(signature: Signature) -> Statement | None:
    """What a signature is under; None where that is no statement in its canonical form."""
    try:
        statement = Statement.model_validate_json(signature.statement, strict=True)
    except ValidationError:
        return None
    return statement if statement.text() == signature.statement else None


def _pem(text: str) -> str:
    if "-----" in text:
        return text
    return f"-----BEGIN PUBLIC KEY-----\n{text.strip()}\n-----END PUBLIC KEY-----\n"
