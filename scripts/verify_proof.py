# /// script
# requires-python = ">=3.11"
# dependencies = ["cryptography>=42"]
# ///
"""Check the proof of one record against a public key, without the server that gave it.

    python verify_proof.py proof.json public-key.pem

The proof is the answer of GET /decisions/{id}/proof, or what `credit-risk audit proof` writes. The
public key has to come from elsewhere: from `credit-risk audit public-key`, handed over in person or
published before. Exit code 0: it proves what is printed; 1: it proves nothing; 2: wrong usage; 3:
it proves that a record of that hash was there, and nothing of what it said.
"""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key


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
    """
    record, inclusion, checkpoint = proof["record"], proof["inclusion"], proof["checkpoint"]
    own = bytes.fromhex(record["hash"])
    canonical = record["canonical"]
    if canonical is not None and sha256(canonical.encode()).digest() != own:
        raise ValueError("the record's content does not give its hash")
    statement = json.loads(checkpoint["statement"])
    try:
        key.verify(base64.b64decode(checkpoint["signature"]), checkpoint["statement"].encode())
    except InvalidSignature:
        raise ValueError("the checkpoint is not signed with this key") from None
    first, last = statement["first"], statement["last"]
    index, size = inclusion["index"], inclusion["size"]
    if (record["sequence"], last - first + 1) != (first + index, size):
        raise ValueError("the place in the tree is not the record's place in the log")
    path = [bytes.fromhex(node) for node in inclusion["path"]]
    if reached(own, index, size, path).hex() != statement["root"]:
        raise ValueError("the path does not lead to the root that was signed")
    signed = datetime.fromtimestamp(statement["time"] / 1e6, UTC).isoformat(timespec="seconds")
    lines = [
        f"On {signed}, the holder of the key stated that record {record['sequence']} of log",
        f"{statement['log']} has the hash {record['hash']}.",
    ]
    if canonical is None:
        # Neither the id nor what became of the content is under the signature.
        return [*lines, "What it says, and so whose it is, this proof does not hold."]
    content = json.loads(canonical)
    if content["id"] != proof["decision_id"]:
        raise ValueError("the record is another than the proof says")
    shown = {name: value for name, value in content.items() if name != "body"}
    shown["body"] = json.loads(content["body"])
    return [*lines, "It says:", json.dumps(shown, indent=2, ensure_ascii=False)]


def public_key(pem: bytes) -> Ed25519PublicKey:
    """The key in a file.

    Raises:
        ValueError: it is not a public key of Ed25519, in PEM.
    """
    key = load_pem_public_key(pem)
    if isinstance(key, Ed25519PublicKey):
        return key
    raise ValueError("the key is not an Ed25519 key")


def main(arguments: list[str]) -> int:
    """Check the proof in one file against the public key in another."""
    try:
        proof_file, key_file = arguments
    except ValueError:
        sys.stderr.write(f"{__doc__}")
        return 2
    try:
        key = public_key(Path(key_file).read_bytes())
        lines = proven(json.loads(Path(proof_file).read_text(encoding="utf-8")), key)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        sys.stderr.write(f"NOT PROVEN: {error}\n")
        return 1
    except UnsupportedAlgorithm as error:
        sys.stderr.write(f"NOT PROVEN: the key cannot be read: {error}\n")
        return 1
    whole = any(line == "It says:" for line in lines)
    sys.stdout.write(
        "\n".join(["PROVEN" if whole else "PROVEN, BUT FOR ITS CONTENT", *lines]) + "\n"
    )
    return 0 if whole else 3


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
