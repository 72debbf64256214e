"""`credit-risk keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from credit_risk.audit import keys
from credit_risk.audit.keys import key_id, new_encryption_key
from credit_risk.settings import Settings
from tests import toys
from tests.commands import (
    Outcome,
    Place,
    decide,
    refused,
)
from tests.sealing import KEY
from tests.signing import ADA, line, write_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def test_new_keys_are_those_that_settings_take(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed as the files hold them; each is another one."""
    printed = {kind: run("keys", kind).out for kind in ("encryption", "signing")}
    for kind, variable in (("encryption", "ENCRYPTION_KEYS_FILE"), ("signing", "SIGNING_KEY_FILE")):
        file = place.folder / kind
        file.write_text(printed[kind], encoding="ascii")
        monkeypatch.setenv(f"CREDIT_RISK_{variable}", str(file))
    monkeypatch.delenv("CREDIT_RISK_ENCRYPTION_KEYS")
    settings = Settings()

    assert keys.sealing(settings) is not None
    assert keys.signing_key(settings) is not None
    assert run("keys", "encryption", "--json").json()["encryption_key"] != printed["encryption"]
    assert "PRIVATE KEY" in run("keys", "signing", "--json").json()["signing_key"]
    assert not place.state.exists()


def test_an_encryption_key_is_replaced(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the old one is needed no more; before, it is missed."""
    ids = decide(place, trees_package, toys.RISKY, toys.SAFE)
    new = new_encryption_key().strip()

    def with_keys(*given: str) -> None:
        monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", " ".join(given))

    with_keys(new)
    missed = run("keys", "rewrap")
    assert missed.code == 1
    assert "2 records are sealed with keys that are not given" in missed.err
    with_keys(new, KEY)
    assert run("keys", "rewrap", "--json").json() == {"rewrapped": 2, "already": 0, "unknown": 0}
    with_keys(new)
    assert run("keys", "rewrap").out == "0 data keys wrapped with the first key; 2 were before\n"
    shown = run("decisions", "show", ids[0], "--json").json()
    assert shown["personal"] == {"input": toys.RISKY}


def test_the_public_part_of_a_key_is_a_line_for_the_file_of_approvers(
    run: Callable[..., Outcome], place: Place
) -> None:
    """Whoever has the private one prints it, and hands over that."""
    file = write_key(place.folder, ADA)

    assert run("keys", "public", str(file)).out == f"{line(ADA)}\n"
    assert run("keys", "public", str(file), "--json").json() == {
        "key_id": key_id(ADA.public_key()),
        "public_key": line(ADA),
    }
    x25519 = X25519PrivateKey.generate()
    file.write_bytes(x25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    refused(run("keys", "public", str(file)), 1, "it is not an Ed25519 key")
