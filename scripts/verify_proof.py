# /// script
# requires-python = ">=3.11"
# dependencies = ["cryptography>=42"]
# ///
"""Check the proof of one record against a public key, without the server that gave it.

    python verify_proof.py proof.json public-key.pem

The proof is the answer of GET /decisions/{id}/proof, or what `credit-risk audit proof` writes. The
public key has to come from elsewhere: from `credit-risk audit public-key`, handed over in person or
published before. Exit code 0: it proves what is printed; 1: it proves nothing; 2: wrong usage; 3:
it proves that a record of that hash was there, and nothing of what it said; 4: one of the files
cannot be read, or is not what it should be.
"""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
except ImportError as error:
    sys.stderr.write(f"NOT CHECKED: this needs cryptography (pip install cryptography): {error}\n")
    sys.exit(4)

FORMAT = "credit-risk-proof/1"
TEXT, TEXT_OR_NULL, NUMBER, HASH = "a text", "a text or null", "a number", "a hash in hexadecimal"
IS = {
    TEXT: lambda given: isinstance(given, str),
    TEXT_OR_NULL: lambda given: given is None or isinstance(given, str),
    NUMBER: lambda given: type(given) is int,
    HASH: lambda given: isinstance(given, str) and re.fullmatch("[0-9a-f]{64}", given),
}
PROOF = {
    "format": TEXT,
    "decision_id": TEXT,
    "record": {"sequence": NUMBER, "hash": HASH, "canonical": TEXT_OR_NULL},
    "inclusion": {"index": NUMBER, "size": NUMBER, "path": [HASH]},
    "checkpoint": {"statement": TEXT, "signature": TEXT},
}
STATEMENT = {"first": NUMBER, "last": NUMBER, "log": TEXT, "root": HASH, "time": NUMBER}
CONTENT = {"id": TEXT, "body": TEXT}
"""What there has to be, and of what type; there may be more."""


class Unreadable(Exception):
    """A file cannot be read, or is not what it should be."""


def read(text: str, shape: object, name: str) -> dict:
    """The JSON object of a text, which has all that its shape names.

    Raises:
        Unreadable: it is none, or something is missing or of another type.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{name} is not JSON: {error}") from None
    check(given, shape, name)
    return given


def check(given: object, shape: object, name: str) -> None:
    """See that what was given is of its shape.

    Raises:
        Unreadable: it is not.
    """
    if isinstance(shape, str):
        if not IS[shape](given):
            raise Unreadable(f"{name} is not {shape}")
    elif isinstance(shape, list):
        if not isinstance(given, list):
            raise Unreadable(f"{name} is not a list")
        for place, one in enumerate(given):
            check(one, shape[0], f"{name}: {place}")
    else:
        if not isinstance(given, dict):
            raise Unreadable(f"{name} is not a JSON object")
        for member, inner in shape.items():
            if member not in given:
                raise Unreadable(f"{name} has no {member!r}")
            check(given[member], inner, f"{name}: {member}")


def reached(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """The root that a path leads to (RFC 9162, section 2.1.3.2).

    Raises:
        ValueError: the path is not one of that place in a tree of that size.
    """
    last = size - 1
    if not 0 <= index <= last:
        raise ValueError("the place is not in the tree")
    node = sha256(b"\x00" + leaf).digest()
    for other in path:
        if last == 0:
            raise ValueError("the path is too long")
        if index % 2 or index == last:
            node = sha256(b"\x01" + other + node).digest()
            while index and not index % 2:
                index, last = index // 2, last // 2
        else:
            node = sha256(b"\x01" + node + other).digest()
        index, last = index // 2, last // 2
    if last:
        raise ValueError("the path is too short")
    return node


def proven(proof: dict, key: Ed25519PublicKey) -> list[str]:
    """What the proof proves, in lines.

    Raises:
        ValueError: something in it does not fit.
        Unreadable: something in it is not what it should be.
    """
    record, inclusion, checkpoint = proof["record"], proof["inclusion"], proof["checkpoint"]
    own = bytes.fromhex(record["hash"])
    canonical = record["canonical"]
    if canonical is not None and sha256(encoded(canonical)).digest() != own:
        raise ValueError("the record's content does not give its hash")
    try:
        signature = base64.b64decode(checkpoint["signature"], validate=True)
        key.verify(signature, encoded(checkpoint["statement"]))
    except (InvalidSignature, ValueError):
        raise ValueError("the checkpoint is not signed with this key") from None
    statement = read(checkpoint["statement"], STATEMENT, "the checkpoint's statement")
    first, last = statement["first"], statement["last"]
    index, size = inclusion["index"], inclusion["size"]
    if (record["sequence"], last - first + 1) != (first + index, size):
        raise ValueError("the place in the tree is not the record's place in the log")
    path = [bytes.fromhex(node) for node in inclusion["path"]]
    if reached(own, index, size, path).hex() != statement["root"]:
        raise ValueError("the path does not lead to the root that was signed")
    try:
        signed = datetime.fromtimestamp(statement["time"] / 1e6, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):
        raise ValueError("the checkpoint was signed at a time that is none") from None
    lines = [
        f"On {signed}, the holder of the key stated that record {record['sequence']} of log",
        f"{statement['log']} has the hash {record['hash']}.",
    ]
    if canonical is None:
        # Neither the id nor what became of the content is under the signature.
        return [*lines, "What it says, and so whose it is, this proof does not hold."]
    content = read(canonical, CONTENT, "the record's content")
    if content["id"] != proof["decision_id"]:
        raise ValueError("the record is another than the proof says")
    shown = {name: value for name, value in content.items() if name != "body"}
    shown["body"] = read(content["body"], {}, "the record's body")
    return [*lines, "It says:", json.dumps(shown, indent=2, ensure_ascii=False)]


def encoded(text: str) -> bytes:
    """The bytes of a text of JSON, which may hold halves of characters that no UTF-8 has."""
    return text.encode("utf-8", "surrogatepass")


def public_key(file: str) -> Ed25519PublicKey:
    """The key in a file.

    Raises:
        Unreadable: it is not a public key of Ed25519, in PEM.
    """
    try:
        key = load_pem_public_key(Path(file).read_bytes())
    except OSError as error:
        raise Unreadable(f"{file}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unreadable(f"{file} is not a public key in PEM") from None
    if isinstance(key, Ed25519PublicKey):
        return key
    raise Unreadable(f"{file} is not an Ed25519 key")


def proof_in(file: str) -> dict:
    """The proof in a file.

    Raises:
        Unreadable: it is none.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise Unreadable(f"{file}: {error.strerror}") from None
    except ValueError:
        raise Unreadable(f"{file} is not text") from None
    proof = read(text, PROOF, file)
    if proof["format"] != FORMAT:
        raise Unreadable(f"{file} is a proof of another format than {FORMAT}")
    return proof


def main(arguments: list[str]) -> int:
    """Check the proof in one file against the public key in another."""
    # What is proven is printed as far as the terminal has letters for it.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        proof_file, key_file = arguments
    except ValueError:
        sys.stderr.write(f"{__doc__}")
        return 2
    try:
        lines = proven(proof_in(proof_file), public_key(key_file))
    except Unreadable as error:
        sys.stderr.write(f"NOT PROVEN: {error}\n")
        return 4
    except ValueError as error:
        sys.stderr.write(f"NOT PROVEN: {error}\n")
        return 1
    whole = any(line == "It says:" for line in lines)
    sys.stdout.write(
        "\n".join(["PROVEN" if whole else "PROVEN, BUT FOR ITS CONTENT", *lines]) + "\n"
    )
    return 0 if whole else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
