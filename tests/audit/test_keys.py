"""What is sealed opens with its key, for its record, unaltered, and in no other way."""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from credit_risk.audit import checkpoints, keys
from credit_risk.audit.keys import Sealing
from credit_risk.audit.log import open_log
from credit_risk.errors import EvidenceInvalid, KeysInvalid, RecordingFailed
from credit_risk.settings import Settings
from tests.audit.test_log import made

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OLD, NEW = bytes(32), bytes([1]) * 32
DIGEST = "76a90fa61349d8fc36e954c3faa662f6da473016daa80134b250081f66de9d06"
"""Of the letter x by the old key, from OpenSSL: HKDF with SHA-256, then HMAC."""
SHARED = "postgresql+psycopg://db/records"


@given(st.text(max_size=40), st.binary())
def test_what_is_sealed_is_opened(record_id: str, personal: bytes) -> None:
    """Whatever it is, and each time under another data key."""
    sealing = Sealing([OLD])
    sealed, data_key = sealing.seal(record_id, personal)

    assert sealing.open(record_id, sealed, data_key) == personal
    assert sealing.seal(record_id, personal) != (sealed, data_key)
    assert len(data_key) == 64


def test_an_older_key_still_opens_and_the_first_one_seals() -> None:
    """A key is replaced by putting another before it."""
    sealed, data_key = Sealing([OLD]).seal("a", b"personal")
    both = Sealing([NEW, OLD])

    assert both.open("a", sealed, data_key) == b"personal"
    assert Sealing([NEW]).open("a", sealed, data_key) is None
    assert Sealing([NEW]).open("a", *both.seal("a", b"later")) == b"later"


def test_a_data_key_is_wrapped_anew_and_opens_the_same() -> None:
    """By the first key, from whichever of those that are here."""
    sealed, data_key = Sealing([OLD]).seal("a", b"personal")
    both = Sealing([NEW, OLD])
    rewrapped = both.rewrapped("a", data_key)
    assert rewrapped is not None

    assert Sealing([NEW]).open("a", sealed, rewrapped) == b"personal"
    assert (both.seals(data_key), both.seals(rewrapped)) == (False, True)
    assert len(rewrapped) == len(data_key)
    assert Sealing([NEW]).rewrapped("a", data_key) is None
    with pytest.raises(EvidenceInvalid, match="record b"):
        both.rewrapped("b", data_key)


def test_a_digest_needs_its_key() -> None:
    """There is one for each key, the sealing one's first, and no message shares another's."""
    old, new = Sealing([OLD]).digests(b"x")[0], Sealing([NEW]).digests(b"x")[0]

    assert Sealing([NEW, OLD]).digests(b"x") == [new, old]
    assert old.hex() == DIGEST
    assert len({old, new, Sealing([OLD]).digests(b"y")[0], hashlib.sha256(b"x").digest()}) == 4


@pytest.mark.parametrize("place", range(0, 64, 9))
def test_what_was_altered_is_not_opened(place: int) -> None:
    """In the ciphertext, in the data key, or taken to another record."""

    def altered(data: bytes) -> bytes:
        i = place % len(data)
        return data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :]

    sealing = Sealing([OLD])
    sealed, data_key = sealing.seal("a", b"personal")

    with pytest.raises(EvidenceInvalid, match=r"record a: .* altered"):
        sealing.open("a", altered(sealed), data_key)
    with pytest.raises(EvidenceInvalid):
        sealing.open("b", sealed, data_key)
    if place >= 4:  # before, it names the key that wraps it
        with pytest.raises(EvidenceInvalid):
            sealing.open("a", sealed, altered(data_key))
    else:
        assert sealing.open("a", sealed, altered(data_key)) is None
    with pytest.raises(EvidenceInvalid):
        sealing.open("a", sealed, data_key[:9])


def test_keys_are_made_once_for_this_user_alone(tmp_path: Path) -> None:
    """Many processes may start at the same time."""
    settings = Settings(state_dir=tmp_path)
    assert (keys.sealing(settings), keys.signing_key(settings)) == (None, None)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: keys.sealing(settings, make=True), range(8)))
    signing = [keys.signing_key(settings, make=True), keys.signing_key(settings)]

    sealed = made[0].seal("a", b"personal")
    assert {one.open("a", *sealed) for one in made} == {b"personal"}
    assert len({key and key.public_key().public_bytes_raw() for key in signing}) == 1
    files = sorted(settings.keys_dir.iterdir())
    assert [file.name for file in files] == ["encryption-keys", "signing-key"]
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(settings.keys_dir.stat().st_mode) == 0o700


def test_a_lost_key_is_not_replaced_by_another(tmp_path: Path) -> None:
    """Of what nothing was used for yet, a new one is made."""
    settings = Settings(state_dir=tmp_path)
    with closing(open_log(settings)) as log:
        log.append([made(personal=None)]).result()
        log.append([made(personal={"input": {}})]).result()
        signing = keys.signing_key(settings, make=True)
        assert keys.signing_key(settings) is not None
        assert checkpoints.sign(log, signing) is not None

    for name, told in (("encryption-keys", "sealed data"), ("signing-key", "signed checkpoints")):
        file = settings.keys_dir / name
        kept = file.read_bytes()
        file.unlink()
        of = keys.signing_key if name == "signing-key" else keys.sealing
        with pytest.raises(KeysInvalid, match=rf"{name} is missing, and {told} in .*: put it back"):
            of(settings, make=True)
        assert not file.exists()
        file.write_bytes(kept)
        assert of(settings, make=True) is not None
    assert keys.groups_sealing(settings, make=True) is not None


def test_a_key_that_nothing_was_used_for_is_made_anew(tmp_path: Path) -> None:
    """As where the records sealed nothing; and in a database that is empty or another's."""
    settings = Settings(state_dir=tmp_path)
    with closing(open_log(settings)) as log:
        log.append([made(personal=None)]).result()
    (settings.keys_dir / "encryption-keys").unlink()
    assert keys.sealing(settings, make=True) is not None
    for number, statement in enumerate(("SELECT 1", "CREATE TABLE records (id TEXT)")):
        path = tmp_path / f"{number}.db"
        with closing(sqlite3.connect(path)) as database:
            database.execute(statement)
        other = Settings(state_dir=tmp_path / str(number), database_url=f"sqlite:///{path}")
        assert keys.sealing(other, make=True) is not None


def test_where_the_database_cannot_be_read_no_key_is_made(tmp_path: Path) -> None:
    """It may be in the place of another."""
    settings = Settings(state_dir=tmp_path)
    (tmp_path / "records.db").write_bytes(b"no database at all" * 100)

    with pytest.raises(RecordingFailed, match="cannot be read"):
        keys.sealing(settings, make=True)
    assert not settings.keys_dir.exists()


def test_keys_may_be_given_as_text_or_in_a_file(tmp_path: Path) -> None:
    """Text wins; nothing is made where they are given."""
    file = tmp_path / "given"
    file.write_text(f"{base64.b64encode(NEW).decode()}\n{base64.b64encode(OLD).decode()}\n")
    pem = keys.new_signing_key()
    given_file = Settings(state_dir=tmp_path, encryption_keys_file=file, database_url=SHARED)
    given_text = Settings(
        state_dir=tmp_path,
        encryption_keys=SecretStr(base64.b64encode(OLD).decode()),
        encryption_keys_file=tmp_path / "none",
        signing_key=SecretStr(pem),
        database_url=SHARED,
    )

    sealed = Sealing([OLD]).seal("a", b"personal")
    for settings in (given_file, given_text):
        assert keys.sealing(settings, make=True).open("a", *sealed) == b"personal"
    assert keys.signing_key(given_text, make=True) is not None
    assert not given_file.keys_dir.exists()
    assert pem not in f"{given_text!r} {given_text.model_dump_json()}"


def x25519() -> str:
    """A key of another kind."""
    text: bytes = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text.decode()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: {"encryption_keys": "short"}, "not base64"),
        (lambda: {"encryption_keys": "c2hvcnQ="}, "32 bytes"),
        (lambda: {"encryption_keys": " "}, "32 bytes"),
        (lambda: {"encryption_keys_file": "/nowhere/keys"}, "ENCRYPTION_KEYS_FILE: /nowhere/keys"),
        (lambda: {"signing_key": "no key"}, "not an unencrypted private key"),
        (lambda: {"signing_key": x25519()}, "not an Ed25519 key"),
        (lambda: {"signing_key_file": "/nowhere/key"}, "SIGNING_KEY_FILE: /nowhere/key"),
        (lambda: {"database_url": SHARED}, "CREDIT_RISK_ENCRYPTION_KEYS_FILE has to be set"),
    ],
    ids=["no base64", "too short", "none", "no file", "no PEM", "other kind", "no PEM file", "pg"],
)
def test_what_is_wrong_with_a_key_is_said(
    tmp_path: Path, given: Callable[[], dict[str, str]], message: str
) -> None:
    """Naming the setting, and never what was in it."""
    settings = Settings.model_validate({"state_dir": tmp_path, **given()})

    with pytest.raises(KeysInvalid, match=message):
        (keys.sealing(settings, make=True), keys.signing_key(settings, make=True))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_copied_process_seals_with_bytes_of_its_own() -> None:
    """What the parent holds ready, the child throws away."""
    sealing = Sealing([OLD])
    sealing.seal("a", b"personal")
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, sealing.seal("a", b"personal")[1])
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 64)

    assert theirs not in {sealing.seal("a", b"personal")[1] for _ in range(64)}
    assert len(theirs) == 64
