"""Approvals: who answers for a package signs its digest, and anybody can check the signature.

A statement is canonical JSON (keys sorted, no spaces), an object of

- ``purpose``: `PURPOSE`, so that nothing that a key signs for another reason is an approval,
- ``portfolio``, ``package``: whose package it is, and its version,
- ``package_sha256``: its digest, and so of every file in it,
- ``approver``: who approves, by the name in the file of approvers,
- ``time``: microseconds since the epoch, by the approver's clock.

Its signature is Ed25519 over its bytes. Signatures lie beside a package, not within: its version
stays what it is, and they go where it goes. Each is on record, too, as a record of kind "approval".

A signature says nothing about when a package may decide: that is the gate's to say, see
`credit_risk.promotion`. It holds until its key is taken from the file of approvers.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature
from pydantic import Field, RootModel, ValidationError

from credit_risk import documents, environment
from credit_risk.audit import keys
from credit_risk.audit.records import unrequested
from credit_risk.documents import Document
from credit_risk.errors import ApprovalRefused, KeysInvalid, PackageInvalid, PortfolioInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from credit_risk.audit.records import AuditLog, Record, Records
    from credit_risk.package import ModelPackage

PURPOSE: Final = "credit-risk: I answer for this package"
MOST = 100
"""Signatures beside one package."""

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

    statement: str
    signature: str
    key_id: str


class Signatures(Document):
    """The file beside a package."""

    signatures: Annotated[tuple[Signature, ...], Field(max_length=MOST)] = ()


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

    def valid(
        self, signatures: Iterable[Signature], portfolio: str, package_sha256: str
    ) -> dict[str, str]:
        """Who has approved a package: the ids of their keys by their names, each person once."""
        found: dict[str, str] = {}
        for signature in signatures:
            name = self._signer(signature, portfolio, package_sha256)
            if name is not None:
                found.setdefault(name, signature.key_id)
        return found

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


def check_new(
    known: Approvers, key: Ed25519PublicKey, already: dict[str, str], version: str
) -> str:
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
    if name in already:
        raise ApprovalRefused(
            f"{name} has approved package {version} before, and counts once; somebody else has to"
        )
    return name


def beside(folder: Path) -> Path:
    """The file of a package's signatures, beside its folder."""
    return folder.with_name(f"{folder.name}.signatures.json")


def read(folder: Path) -> tuple[Signature, ...]:
    """The signatures beside a package, whether they hold or not; none where there is no file.

    Raises:
        PackageInvalid: the file is not one of ours.
    """
    file = beside(folder)
    try:
        return Signatures.model_validate_json(file.read_bytes()).signatures
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise PackageInvalid(f"{file}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise PackageInvalid(f"{file}: it holds no signatures of a package") from error


def add(folder: Path, signatures: Iterable[Signature]) -> None:
    """Put signatures beside a package, to those that are there; the file is whole at any time.

    Raises:
        PackageInvalid: see `read`; or there would be more than `MOST`.
    """
    before = read(folder)
    both = tuple(dict.fromkeys((*before, *signatures)))
    if both == before:
        return
    if len(both) > MOST:
        raise PackageInvalid(f"{beside(folder)}: more than {MOST} signatures of one package")
    text = Signatures(signatures=both).model_dump_json(indent=1)
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


def recorded(records: Records, portfolio: str, version: str) -> list[Signature]:
    """The signatures of a package that are on record; what was altered there is none.

    Raises:
        RecordingFailed: the record database cannot be read.
    """
    found = records.find(portfolio=portfolio, kind="approval", model_version=version, limit=MOST)
    signatures = []
    for record in found:
        try:
            signatures.append(Signature.model_validate(record.body.get("signature")))
        except ValidationError:
            continue  # altered, or of another version of this program: it proves nothing
    return signatures


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
