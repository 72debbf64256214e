"""Proofs: the script that checks them needs nothing of ours, and takes nothing else for one."""

from __future__ import annotations

import base64
import hashlib
import json
import runpy
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from credit_risk.audit import keys, proofs
from credit_risk.audit.log import SqlAuditLog
from credit_risk.audit.tables import CHECKPOINTS, RECORDS
from credit_risk.errors import EvidenceInvalid, RecordNotFound
from tests.audit.tampering import EMPTY, INTRUDER
from tests.audit.test_checkpoints import KEY, altered, signer
from tests.audit.test_log import made
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[dict[str, Any]], None]

SCRIPT = Path(__file__).parents[2] / "scripts" / "verify_proof.py"
PROGRAM = runpy.run_path(str(SCRIPT))
SIZE = 11
RSA = (
    generate_private_key(65_537, 2_048)
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqlAuditLog]:
    """A log of eleven decisions."""
    with closing(SqlAuditLog(f"sqlite:///{tmp_path / 'records.db'}", SEALING)) as opened:
        opened.append([made(body={"pd": 0.5, "n": n}) for n in range(SIZE)]).result()
        yield opened


def ids(log: SqlAuditLog) -> list[str]:
    """The ids of all records, in order."""
    with log.reading() as connection:
        return list(connection.scalars(sa.select(RECORDS.c.id).order_by(RECORDS.c.sequence)))


def prove(log: SqlAuditLog, record_id: str) -> dict[str, Any]:
    """The proof of a record."""
    return proofs.proof(signer(log)[0], record_id, made().portfolio)


def checked(folder: Path, proof: object, key: str | None = None) -> tuple[int, str]:
    """How the script ends, and what it prints; run as on a machine without this package."""
    pem = keys.public_pem(KEY.public_key()) if key is None else key
    (folder / "proof.json").write_text(json.dumps(proof), encoding="utf-8")
    (folder / "key.pem").write_text(pem, encoding="utf-8")
    told = subprocess.run(  # noqa: S603 - this interpreter, on a script of ours
        [sys.executable, "-I", SCRIPT, "proof.json", "key.pem"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in told.stderr
    return told.returncode, told.stdout + told.stderr


def test_every_record_can_be_proven(log: SqlAuditLog) -> None:
    """Whatever its place in the tree; one checkpoint does for all."""
    for place, record_id in enumerate(ids(log), start=1):
        proof = prove(log, record_id)
        assert json.loads(proof["record"]["canonical"])["id"] == proof["decision_id"] == record_id
        assert (proof["record"]["sequence"], proof["inclusion"]["size"]) == (place, SIZE)
        assert proof["public_key"] == keys.public_pem(KEY.public_key())


def test_the_script_says_what_is_proven(log: SqlAuditLog, tmp_path: Path) -> None:
    """When it was signed, the place, the hash, and the record."""
    proof = prove(log, ids(log)[6])
    code, told = checked(tmp_path, proof)

    assert code == 0
    assert told.startswith("PROVEN\n")
    assert "record 7 of log" in told
    assert proof["record"]["hash"] in told
    assert '"pd": 0.5' in told


def test_what_retention_took_is_proven_by_its_hash(log: SqlAuditLog, tmp_path: Path) -> None:
    """And the proof says that it is no more than that."""
    record_id = ids(log)[6]
    before = prove(log, record_id)
    altered(log, sa.update(RECORDS).where(RECORDS.c.id == record_id).values(**EMPTY))
    proof = prove(log, record_id)

    assert proof["record"] == before["record"] | {"canonical": None}
    assert "taken by retention" in proof["proves"]
    code, told = checked(tmp_path, proof)
    assert code == 3
    assert told.startswith("PROVEN, BUT FOR ITS CONTENT\n")
    assert "this proof does not hold" in told


def _at(*path: str) -> Callable[[object], Change]:
    def setting(value: object) -> Change:
        def change(proof: dict[str, Any]) -> None:
            *parents, last = path
            for name in parents:
                proof = proof[name]
            proof[last] = value

        return change

    return setting


def _replaced(*path: str, old: str, new: str) -> Change:
    def change(proof: dict[str, Any]) -> None:
        *parents, last = path
        for name in parents:
            proof = proof[name]
        assert old in proof[last]
        proof[last] = proof[last].replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_replaced("record", "canonical", old="APPROVE", new="DECLINE"), "does not give its hash"),
        (_at("record", "hash")("ab" * 32), "does not give its hash"),
        (_at("record", "sequence")(8), "place in the log"),
        (_at("inclusion", "index")(5), "place in the log"),
        (_at("inclusion", "size")(12), "place in the log"),
        (_at("inclusion", "path")([]), "too short"),
        (_at("inclusion", "path")(["ab" * 32] * 9), "too long"),
        (_at("inclusion", "path")(["ab" * 32] * 4), "does not lead"),
        (_at("decision_id")("another"), "another than the proof says"),
        (_replaced("checkpoint", "statement", old='"first":1', new='"first":2'), "not signed"),
        (_at("checkpoint", "signature")("AAAA"), "not signed"),
    ],
)
def test_a_proof_that_was_altered_proves_nothing(
    log: SqlAuditLog, tmp_path: Path, change: Change, told: str
) -> None:
    """Whichever part of it."""
    proof = prove(log, ids(log)[6])
    change(proof)
    code, printed = checked(tmp_path, proof)
    assert code == 1
    assert printed.startswith("NOT PROVEN")
    assert told in printed


def test_another_key_proves_nothing(log: SqlAuditLog, tmp_path: Path) -> None:
    """And without files it says how it is used."""
    proof = prove(log, ids(log)[0])
    code, told = checked(tmp_path, proof, keys.public_pem(INTRUDER.public_key()))
    assert (code, told) == (1, "NOT PROVEN: the checkpoint is not signed with this key\n")
    usage = subprocess.run(  # noqa: S603 - this interpreter, on a script of ours
        [sys.executable, "-I", SCRIPT], capture_output=True, text=True, check=False
    )
    assert (usage.returncode, "verify_proof.py proof.json" in usage.stderr) == (2, True)


WHOLE: dict[str, Any] = {
    "format": proofs.FORMAT,
    "decision_id": "x",
    "record": {"sequence": 1, "hash": "ab" * 32, "canonical": None},
    "inclusion": {"index": 0, "size": 1, "path": []},
    "checkpoint": {"statement": "{}", "signature": ""},
}
"""A proof as far as its shape goes."""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "proof.json is not JSON"),
        (json.dumps(WHOLE).encode()[:80], "proof.json is not JSON"),
        (b"[" * 100_000, "proof.json is not JSON"),
        (b"\xff\xfe", "proof.json is not text"),
        (b"[]", "proof.json is not a JSON object"),
        (b"{}", "proof.json has no 'format'"),
        ({"format": "credit-risk-proof/9"}, "another format than credit-risk-proof/1"),
        ({"record": {"sequence": 1, "canonical": None}}, "proof.json: record has no 'hash'"),
        ({"record": {**WHOLE["record"], "sequence": True}}, "sequence is not a number"),
        ({"record": {**WHOLE["record"], "hash": "x"}}, "hash is not a hash"),
        ({"record": {**WHOLE["record"], "hash": "AB" * 32}}, "hash is not a hash"),
        ({"record": {**WHOLE["record"], "canonical": 1}}, "canonical is not a text or null"),
        ({"inclusion": {"index": 0, "size": 1, "path": "x"}}, "path is not a list"),
        ({"inclusion": {"index": 0, "size": 1, "path": [1]}}, "path: 0 is not a hash"),
        ({"checkpoint": None}, "checkpoint is not a JSON object"),
    ],
)
def test_a_file_that_is_no_proof_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: bytes | dict[str, Any], told: str
) -> None:
    """Broken, cut off, or of another type; with a code of its own."""
    content = text if isinstance(text, bytes) else json.dumps(WHOLE | text).encode()
    (tmp_path / "proof.json").write_bytes(content)
    code, printed = ended(capsys, tmp_path, "proof.json", "key.pem")
    assert code == 4
    assert printed.startswith("NOT PROVEN: ")
    assert told in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        (b"", "key.pem is not a public key in PEM"),
        (b"\xff\x00", "key.pem is not a public key in PEM"),
        (keys.public_pem(KEY.public_key()).encode()[:60], "key.pem is not a public key in PEM"),
        (keys.new_signing_key().encode(), "key.pem is not a public key in PEM"),
        (RSA, "key.pem is not an Ed25519 key"),
    ],
)
def test_a_file_that_is_no_key_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, pem: bytes, told: str
) -> None:
    """A private one is none to check with; and a file that is not there is not there."""
    (tmp_path / "proof.json").write_text(json.dumps(WHOLE), encoding="utf-8")
    (tmp_path / "key.pem").write_bytes(pem)
    code, printed = ended(capsys, tmp_path, "proof.json", "key.pem")
    assert (code, printed) == (4, f"NOT PROVEN: {tmp_path}/{told}\n")
    for files in (("nowhere", "key.pem"), ("proof.json", "nowhere")):
        code, printed = ended(capsys, tmp_path, *files)
        assert (code, printed.endswith("nowhere: No such file or directory\n")) == (4, True)


@pytest.mark.parametrize(
    ("signed", "told", "code"),
    [
        ("[]", "the checkpoint's statement is not a JSON object", 4),
        ('{"first":1,"last":1,"log":"x","root":"%s"}' % ("ab" * 32), "has no 'time'", 4),
        ('{"first":1,"last":1,"log":"x","root":"ROOT","time":1%s}' % ("0" * 400), "is none", 1),
    ],
)
def test_a_statement_that_says_nothing_proves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, signed: str, told: str, code: int
) -> None:
    """Even one that was signed."""
    leaf = hashlib.sha256(b"\0" + bytes.fromhex("ab" * 32)).hexdigest()
    statement = signed.replace("ROOT", leaf)
    signature = base64.b64encode(KEY.sign(statement.encode())).decode()
    proof = WHOLE | {"checkpoint": {"statement": statement, "signature": signature}}
    (tmp_path / "proof.json").write_text(json.dumps(proof), encoding="utf-8")
    (tmp_path / "key.pem").write_text(keys.public_pem(KEY.public_key()), encoding="utf-8")
    ended_with, printed = ended(capsys, tmp_path, "proof.json", "key.pem")
    assert ended_with == code
    assert told in printed


def ended(capsys: pytest.CaptureFixture[str], folder: Path, *files: str) -> tuple[int, str]:
    """How the script ends and what it prints, run in this process."""
    code: int = PROGRAM["main"]([str(folder / file) for file in files])
    return code, capsys.readouterr().err


def test_a_proof_of_a_checkpoint_by_an_earlier_key_leaves_the_key_out(log: SqlAuditLog) -> None:
    """The one in force did not sign it."""
    record_id = ids(log)[0]
    prove(log, record_id)
    now = signer(log)[0]
    now.key = INTRUDER
    assert proofs.proof(now, record_id, made().portfolio)["public_key"] is None


@pytest.mark.parametrize(
    "values", [{"decision": "DECLINE"}, {"hash": b"x" * 32}, {"previous": b"x" * 32}]
)
def test_a_record_that_was_altered_cannot_be_proven(
    log: SqlAuditLog, values: dict[str, object]
) -> None:
    """A server hands out no proof that would not hold."""
    record_id = ids(log)[6]
    prove(log, record_id)
    altered(log, sa.update(RECORDS).where(RECORDS.c.sequence == 7).values(**values))
    with pytest.raises(EvidenceInvalid):
        prove(log, record_id)


def test_a_record_between_checkpoints_cannot_be_proven(log: SqlAuditLog) -> None:
    """Its checkpoint is gone, and no new one can be about it."""
    first = ids(log)[0]
    prove(log, first)
    log.append([made()]).result()
    prove(log, ids(log)[-1])
    altered(log, sa.delete(CHECKPOINTS).where(CHECKPOINTS.c.number == 1))
    with pytest.raises(EvidenceInvalid, match="under no checkpoint"):
        prove(log, first)


@pytest.mark.parametrize("record_id", ["x", "\0", "01936b2e-7c40-7cc3-98c4-dc0c0c07398f"])
def test_what_is_not_there_cannot_be_proven(log: SqlAuditLog, record_id: str) -> None:
    """Nor what is another portfolio's."""
    with pytest.raises(RecordNotFound):
        prove(log, record_id)
    with pytest.raises(RecordNotFound):
        proofs.proof(signer(log)[0], ids(log)[0], "another")
