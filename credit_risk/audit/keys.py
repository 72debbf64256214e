"""Keys: what applicants' data are sealed with, and what checkpoints are signed with.

Envelope encryption: each record's personal data are sealed with a data key of their own, and that
with a key-encryption key. Without its data key a record's personal data are gone for good, while
the ciphertext, and so the chain, stays as it was.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import sqlalchemy as sa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import exc

from credit_risk.audit import sqlite
from credit_risk.audit.tables import CHECKPOINTS, GROUPS, RECORDS
from credit_risk.errors import EvidenceInvalid, KeysInvalid, RecordingFailed, RecordNotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import SecretStr

    from credit_risk.settings import Settings

KEY_BYTES = 32
_NONCE_BYTES = 12
_NAME_BYTES = 4
_ONCE = bytes(_NONCE_BYTES)
"""The nonce of a data key, which seals one thing and no other."""
WRAPPED_BYTES = _NAME_BYTES + _NONCE_BYTES + KEY_BYTES + 16
"""Length of a wrapped data key: the last are AES-GCM's tag."""


class Sealing:
    """Seals records' personal data and opens them: AES-256-GCM, a data key for each record.

    It also makes digests of what is not to be guessed from them.

    Args:
        keys: key-encryption keys, 32 bytes each; the first seals, and each opens what it sealed.

    Raises:
        KeysInvalid: none, or not of that length.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise KeysInvalid(f"an encryption key is {KEY_BYTES} bytes, in base64")
        self._keys = {_name(key): AESGCM(key) for key in keys}
        self._first = _name(keys[0])
        self._random = _Random()
        self._digesting = [
            HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=b"credit-risk digests").derive(key)
            for key in keys
        ]

    def seal(self, record_id: str, personal: bytes) -> tuple[bytes, bytes]:
        """The ciphertext of a record's personal data, and their data key, wrapped.

        A wrapped key is the first 4 bytes of the SHA-256 of the key that wraps it, a nonce of 12,
        and 48 of ciphertext and tag. Both are bound to the record's id.
        """
        random = self._random.take()
        key, nonce = random[:KEY_BYTES], random[KEY_BYTES:]
        sealed = AESGCM(key).encrypt(_ONCE, personal, record_id.encode())
        return sealed, self._wrapped(record_id, key, nonce)

    def open(self, record_id: str, sealed: bytes, data_key: bytes) -> bytes | None:
        """A record's personal data; None where the key that wraps their key is not here.

        Raises:
            EvidenceInvalid: ciphertext or data key are not what was sealed for that record.
        """
        key = self._unwrapped(record_id, data_key)
        if key is None:
            return None
        try:
            personal: bytes = AESGCM(key).decrypt(_ONCE, sealed, record_id.encode())
        except (InvalidTag, ValueError) as error:
            raise EvidenceInvalid(f"record {record_id}: the sealed data were altered") from error
        return personal

    def seal_as_one(self, name: str, content: bytes) -> bytes:
        """What is no record's, sealed: the wrapped key, `WRAPPED_BYTES`, and the ciphertext."""
        sealed, data_key = self.seal(name, content)
        return data_key + sealed

    def open_as_one(self, name: str, sealed: bytes) -> bytes | None:
        """What `seal_as_one` sealed under that name; raises and returns as `open` does."""
        return self.open(name, sealed[WRAPPED_BYTES:], sealed[:WRAPPED_BYTES])

    @property
    def names(self) -> list[str]:
        """The names of the keys, in their order: 8 hexadecimal digits each."""
        return [name.hex() for name in self._keys]

    def misnamed(self, record_id: str, data_key: bytes) -> bool:
        """Whether a data key is wrapped by one of the keys here, though it names none of them."""
        start = _NAME_BYTES + _NONCE_BYTES
        for wrapping in self._keys.values():
            with suppress(InvalidTag, ValueError):
                wrapping.decrypt(data_key[_NAME_BYTES:start], data_key[start:], record_id.encode())
                return data_key[:_NAME_BYTES] not in self._keys
        return False

    def seals(self, data_key: bytes) -> bool:
        """Whether a wrapped data key is wrapped by the key that seals now."""
        return data_key.startswith(self._first)

    def rewrapped(self, record_id: str, data_key: bytes) -> bytes | None:
        """The same data key, wrapped by the key that seals; None where what wraps it is not here.

        Raises:
            EvidenceInvalid: it is not what was wrapped for that record.
        """
        key = self._unwrapped(record_id, data_key)
        return None if key is None else self._wrapped(record_id, key, os.urandom(_NONCE_BYTES))

    def _wrapped(self, record_id: str, key: bytes, nonce: bytes) -> bytes:
        wrapping = self._keys[self._first]
        return self._first + nonce + wrapping.encrypt(nonce, key, record_id.encode())

    def _unwrapped(self, record_id: str, data_key: bytes) -> bytes | None:
        wrapping = self._keys.get(data_key[:_NAME_BYTES])
        if wrapping is None:
            return None
        start = _NAME_BYTES + _NONCE_BYTES
        try:
            key: bytes = wrapping.decrypt(
                data_key[_NAME_BYTES:start], data_key[start:], record_id.encode()
            )
        except (InvalidTag, ValueError) as error:
            raise EvidenceInvalid(f"record {record_id}: the sealed data were altered") from error
        return key

    def digests(self, message: bytes) -> list[bytes]:
        """HMAC-SHA256 of a message, 32 bytes, by each key; that of the key that seals is first.

        An application has so few possible values that its plain hash gives it away to whoever
        tries them all. The keys of the digests are derived from the others (HKDF, RFC 5869).
        """
        return [hmac.digest(key, message, "sha256") for key in self._digesting]


class _Random:
    """Random bytes for one record at a time, asked of the system for many.

    Asking lets go of the interpreter's lock, and an event loop waits to have it back: 70 us a
    record on a busy server, against 3 for all else that sealing takes.
    """

    _RECORDS = 64

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[bytes] = []
        # A copy of this process would use the same bytes a second time.
        os.register_at_fork(after_in_child=self._left.clear)

    def take(self) -> bytes:
        """Bytes that nobody else is given: a data key and a nonce."""
        with self._lock:
            if not self._left:
                size = KEY_BYTES + _NONCE_BYTES
                block = os.urandom(size * self._RECORDS)
                self._left += [block[i : i + size] for i in range(0, len(block), size)]
            return self._left.pop()


@overload
def sealing(settings: Settings, *, make: Literal[True]) -> Sealing: ...
@overload
def sealing(settings: Settings) -> Sealing | None: ...
def sealing(settings: Settings, *, make: bool = False) -> Sealing | None:
    """What seals and opens personal data, with the keys of the settings.

    Args:
        settings: name keys, their file, or neither: then they are under the state directory.
        make: make what is not there; only for records in SQLite, and only as long as nothing
            there needs the one that is missing.

    Returns:
        None where there are no keys and none are to be made.

    Raises:
        KeysInvalid: keys are malformed, a file that is named is missing, or records in another
            database than SQLite have no keys given, which all of its servers share; or one would
            be made in the place of a lost one.
        RecordingFailed: whether one is lost cannot be seen, for the database cannot be read.
    """
    given, named = settings.encryption_keys, settings.encryption_keys_file
    return _sealing(_text(settings, given, named, "ENCRYPTION_KEYS", make=make))


@overload
def groups_sealing(settings: Settings, *, make: Literal[True]) -> Sealing: ...
@overload
def groups_sealing(settings: Settings) -> Sealing | None: ...
def groups_sealing(settings: Settings, *, make: bool = False) -> Sealing | None:
    """What seals and opens applicants' groups; see `sealing`, whose keys it never shares."""
    given, named = settings.groups_keys, settings.groups_keys_file
    return _sealing(_text(settings, given, named, "GROUPS_KEYS", make=make))


@overload
def signing_key(settings: Settings, *, make: Literal[True]) -> Ed25519PrivateKey: ...
@overload
def signing_key(settings: Settings) -> Ed25519PrivateKey | None: ...
def signing_key(settings: Settings, *, make: bool = False) -> Ed25519PrivateKey | None:
    """What checkpoints are signed with; see `sealing`.

    Raises:
        KeysInvalid: as `sealing`; or it is not an Ed25519 key in PEM.
    """
    text = _text(
        settings,
        settings.signing_key,
        settings.signing_key_file,
        "SIGNING_KEY",
        make=make,
    )
    if text is None:
        return None
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise KeysInvalid("the signing key is not an unencrypted private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysInvalid("the signing key is not an Ed25519 key")
    return key


def private_key(text: str, passphrase: str | None = None) -> Ed25519PrivateKey:
    """A private key of PEM.

    Raises:
        KeysInvalid: it is not one of Ed25519, or the passphrase is not its own.
    """
    password = None if passphrase is None else passphrase.encode()
    try:
        key = serialization.load_pem_private_key(text.encode(), password)
    except (ValueError, TypeError) as error:
        raise KeysInvalid("it is not a private key in PEM, or the passphrase is wrong") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeysInvalid("it is not an Ed25519 key")
    return key


def public_key(text: str) -> Ed25519PublicKey:
    """A public key of PEM.

    Raises:
        KeysInvalid: it is not one of Ed25519.
    """
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, TypeError) as error:
        raise KeysInvalid("it is not a public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeysInvalid("it is not an Ed25519 key")
    return key


def public_pem(key: Ed25519PublicKey) -> str:
    """The public key as PEM."""
    text: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text.decode()


def wrapping_name(data_key: bytes) -> str:
    """The name of the key that a data key says it is wrapped with, as in `Sealing.names`."""
    return data_key[:_NAME_BYTES].hex()


def key_id(key: Ed25519PublicKey) -> str:
    """What names a public key: the first 16 hexadecimal digits of the SHA-256 of its 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def new_encryption_key() -> str:
    """A key-encryption key as settings take it: a line of base64."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode() + "\n"


def new_signing_key() -> str:
    """An Ed25519 private key as settings take it: PEM, PKCS 8."""
    text: bytes = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return text.decode()


class _Kind(NamedTuple):
    """A kind of key: how one is made, and the column that is empty as long as none was used."""

    new: Callable[[], str]
    command: str
    column: sa.Column[Any]
    used_for: str


_KINDS = {
    "ENCRYPTION_KEYS": _Kind(
        new_encryption_key, "credit-risk keys encryption", RECORDS.c.data_key, "sealed data"
    ),
    "GROUPS_KEYS": _Kind(
        new_encryption_key, "credit-risk keys encryption", GROUPS.c.sealed, "applicants' groups"
    ),
    "SIGNING_KEY": _Kind(
        new_signing_key, "credit-risk keys signing", CHECKPOINTS.c.signature, "signed checkpoints"
    ),
}


def _used(url: sa.URL, setting: str) -> bool:
    """Whether a SQLite database holds what a key of that kind was used for.

    Raises:
        RecordingFailed: it cannot be read.
    """
    column = _KINDS[setting].column
    try:
        reading = sqlite.engine(url, 5.0, writes=False)
    except RecordNotFound:
        return False
    try:
        with reading.connect() as connection:
            inspector = sa.inspect(connection)
            # A database of another version is refused by who opens it.
            if not inspector.has_table(column.table.name):
                return False
            if column.name not in {one["name"] for one in inspector.get_columns(column.table.name)}:
                return False
            used = sa.select(sa.exists(sa.select(column).where(column.is_not(None))))
            return bool(connection.execute(used).scalar_one())
    except exc.SQLAlchemyError as error:
        raise RecordingFailed(
            f"{url.database} cannot be read, and so not whether a key of it is lost"
        ) from error
    finally:
        reading.dispose()


def _sealing(text: str | None) -> Sealing | None:
    if text is None:
        return None
    try:
        return Sealing([base64.b64decode(line, validate=True) for line in text.split()])
    except binascii.Error as error:
        raise KeysInvalid("an encryption key is not base64") from error


def _text(
    settings: Settings, given: SecretStr | None, named: Path | None, setting: str, *, make: bool
) -> str | None:
    if given is not None:
        return given.get_secret_value()
    if named is not None:
        try:
            return named.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise KeysInvalid(f"{setting}_FILE: {named} cannot be read") from error
    path = settings.keys_dir / setting.lower().replace("_", "-")
    if not path.exists():
        if not make:
            return None
        if settings.audit_url.get_backend_name() != "sqlite":
            raise KeysInvalid(
                f"CREDIT_RISK_{setting} or CREDIT_RISK_{setting}_FILE has to be set: every server "
                "of a shared database needs the same (`credit-risk keys` makes one)"
            )
        # Looked for again: another process may have made it since, and used it.
        if _used(settings.audit_url, setting) and not path.exists():
            raise KeysInvalid(
                f"{path} is missing, and {_KINDS[setting].used_for} in "
                f"{settings.audit_url.database} need it: put it back from its backup, or set "
                f"CREDIT_RISK_{setting}_FILE. If it is lost for good, `{_KINDS[setting].command} "
                f"> {path}` begins with another, which is of no use to what is there"
            )
        _keep(path, _KINDS[setting].new())
    return path.read_text(encoding="ascii")


def _keep(path: Path, text: str) -> None:
    """Make the file with that text, for this user alone; a process that was first has its way."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            Path(path).hardlink_to(temporary)
    finally:
        Path(temporary).unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _name(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:_NAME_BYTES]
