"""Approvers of tests: their keys, and the file that names them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from credit_risk import approvals
from credit_risk.audit.keys import public_pem
from tests import toys

if TYPE_CHECKING:
    from pathlib import Path

    from credit_risk.approvals import Signature

ADA, BEN, EVE = (Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32) for seed in (1, 2, 3))
"""Eve is nobody: her key is in no file."""
NOON = 1_772_539_200_000_000


def line(key: Ed25519PrivateKey) -> str:
    """The public part, as a line of the file of approvers."""
    return public_pem(key.public_key()).splitlines()[1]


def write_approvers(folder: Path) -> Path:
    """The file that names Ada and Ben."""
    file = folder / "approvers.yaml"
    file.write_text(f"ada: {line(ADA)}\nben: {line(BEN)}\n", encoding="utf-8")
    return file


def write_key(folder: Path, key: Ed25519PrivateKey, passphrase: str | None = None) -> Path:
    """A private key as a file."""
    file = folder / f"{line(key)[-8:].replace('/', '-')}.pem"
    sealed: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        sealed = serialization.BestAvailableEncryption(passphrase.encode())
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    )
    return file


def approval(
    key: Ed25519PrivateKey, approver: str, sha256: str, portfolio: str = toys.NAME
) -> Signature:
    """An approval of the package of that digest."""
    return approvals.sign(
        key,
        approver,
        portfolio=portfolio,
        package=sha256[:12],
        package_sha256=sha256,
        time=NOON,
    )
