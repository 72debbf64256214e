"""Approvals: what a signature has to be for its owner to count, and where it is kept."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from credit_risk import approvals
from credit_risk.approvals import BYTES_MOST, MOST, Signature, Signatures, Signed
from credit_risk.audit import keys
from credit_risk.audit.log import SqlAuditLog
from credit_risk.decisions import new_id
from credit_risk.errors import ApprovalRefused, KeysInvalid, PackageInvalid
from credit_risk.manifest import read_manifest
from tests import toys
from tests.sealing import SEALING
from tests.signing import ADA, BEN, EVE, NOON, approval, line, write_approvers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from credit_risk.approvals import Approvers

SHA256 = "ab" * 32


@pytest.fixture
def known(tmp_path: Path) -> Approvers:
    """Ada and Ben may approve."""
    return approvals.approvers(write_approvers(tmp_path))


def valid(known: Approvers, *signatures: Signature) -> list[str]:
    """Who has approved the package."""
    return list(known.valid(signatures, toys.NAME, SHA256).by)


def reworded(signature: Signature, **changed: object) -> Signature:
    """The same signature under another statement."""
    stated = json.loads(signature.statement) | changed
    text = json.dumps(stated, sort_keys=True, separators=(",", ":"))
    return signature.model_copy(update={"statement": text})


# Whose signature counts


def test_each_approver_counts_once(known: Approvers) -> None:
    """However often they sign, and in whatever order."""
    ada, ben = approval(ADA, "ada", SHA256), approval(BEN, "ben", SHA256)

    assert valid(known) == []
    assert valid(known, ada, ada) == ["ada"]
    signed = known.valid([ben, ada, ben], toys.NAME, SHA256)
    assert (signed.by, signed.others) == ({"ben": ben, "ada": ada}, 0)
    assert signed.key_ids == {
        "ben": keys.key_id(BEN.public_key()),
        "ada": keys.key_id(ADA.public_key()),
    }


def test_what_is_signed_says_all_that_it_is_about() -> None:
    """In its canonical form, so that the same approval is the same bytes."""
    signed = approval(ADA, "ada", SHA256)

    assert json.loads(signed.statement) == {
        "purpose": "credit-risk: I answer for this package",
        "portfolio": toys.NAME,
        "package": SHA256[:12],
        "package_sha256": SHA256,
        "approver": "ada",
        "time": NOON,
    }
    assert signed == approval(ADA, "ada", SHA256)
    ADA.public_key().verify(base64.b64decode(signed.signature), signed.statement.encode())


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param(lambda: approval(EVE, "eve", SHA256), id="a stranger"),
        pytest.param(lambda: approval(EVE, "ada", SHA256), id="a stranger by another's name"),
        pytest.param(lambda: approval(BEN, "ada", SHA256), id="an approver by another's name"),
        pytest.param(lambda: approval(ADA, "ada", "cd" * 32), id="another package"),
        pytest.param(lambda: approval(ADA, "ada", SHA256, "cards"), id="another portfolio"),
        pytest.param(lambda: reworded(approval(ADA, "ada", SHA256), time=0), id="reworded"),
        pytest.param(
            lambda: reworded(approval(ADA, "ada", "cd" * 32), package_sha256=SHA256),
            id="of another package, reworded",
        ),
        pytest.param(
            lambda: approval(EVE, "ada", SHA256).model_copy(
                update={"key_id": keys.key_id(ADA.public_key())}
            ),
            id="under another's key id",
        ),
        pytest.param(
            lambda: approval(ADA, "ada", SHA256).model_copy(update={"signature": "not base64!"}),
            id="no base64",
        ),
        pytest.param(
            lambda: approval(ADA, "ada", SHA256).model_copy(update={"signature": "é" * 88}),
            id="no ASCII",
        ),
        pytest.param(
            lambda: approval(ADA, "ada", SHA256).model_copy(update={"statement": "{}"}),
            id="no statement",
        ),
    ],
)
def test_a_signature_that_does_not_fit_is_nobodys(
    known: Approvers, forged: Callable[[], Signature]
) -> None:
    """And keeps nobody else's from counting."""
    signed = known.valid([forged(), approval(BEN, "ben", SHA256)], toys.NAME, SHA256)

    assert list(signed.by) == ["ben"]
    assert signed.told() == "ben; signatures that count for nobody: 1"


def test_what_a_key_signs_for_another_purpose_is_no_approval(known: Approvers) -> None:
    """The same names and digests under other words, soundly signed."""
    text = reworded(approval(ADA, "ada", SHA256), purpose="I have read about it").statement
    signed = Signature(
        statement=text,
        signature=base64.b64encode(ADA.sign(text.encode())).decode(),
        key_id=keys.key_id(ADA.public_key()),
    )

    assert valid(known, signed) == []


def test_a_statement_in_another_form_is_none(known: Approvers) -> None:
    """Two texts of one meaning would be two approvals."""
    text = json.dumps(json.loads(approval(ADA, "ada", SHA256).statement), indent=1)
    signed = Signature(
        statement=text,
        signature=base64.b64encode(ADA.sign(text.encode())).decode(),
        key_id=keys.key_id(ADA.public_key()),
    )

    assert valid(known, signed) == []


# Who may approve


def test_a_person_may_have_several_keys_and_is_one_person(tmp_path: Path) -> None:
    """A new key beside the old one, whose approvals go on to hold; in PEM, or its line alone."""
    file = tmp_path / "approvers.yaml"
    pem = keys.public_pem(BEN.public_key())
    text = json.dumps({"ada": [line(ADA), pem]})  # JSON is YAML
    file.write_text(text, encoding="utf-8")
    known = approvals.approvers(file)

    assert known.names == ["ada"]
    both = approval(ADA, "ada", SHA256), approval(BEN, "ada", SHA256)
    assert valid(known, *both) == ["ada"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"ada: {line(ADA)}\nben: {line(ADA)}\n", "ada and ben have the same key"),
        (
            json.dumps({"ada": keys.public_pem(ADA.public_key()), "ben": f"\n {line(ADA)}\t "}),
            "ada and ben have the same key",
        ),
        (
            json.dumps({"ada": line(BEN), "ben": [line(ADA), f"{line(BEN)[:9]}\n{line(BEN)[9:]}"]}),
            "ada and ben have the same key",
        ),
        (f"ada: {line(ADA)}\nAda: {line(BEN)}\n", "Ada is there twice, but for capitals"),
        ("ada: MCowBQYD\n", "ada: it is not a public key in PEM"),
        ("ada: {key: 1}\n", "ada"),
        ("- ada\n", "document"),
    ],
)
def test_a_wrong_file_of_approvers_is_refused(tmp_path: Path, text: str, told: str) -> None:
    """One person under two names would be two approvals."""
    file = tmp_path / "approvers.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(KeysInvalid, match=told) as caught:
        approvals.approvers(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_of_approvers_is_told(tmp_path: Path) -> None:
    """By its name."""
    with pytest.raises(KeysInvalid, match=r"nowhere\.yaml: cannot be read"):
        approvals.approvers(tmp_path / "nowhere.yaml")


def test_nobody_approves_twice_and_strangers_not_at_all(known: Approvers) -> None:
    """By whichever key."""
    ben = approval(BEN, "ben", SHA256)
    assert approvals.check_new(known, ADA.public_key(), Signed({"ben": ben}), "v") == "ada"
    with pytest.raises(ApprovalRefused, match="ada has approved package v before"):
        approvals.check_new(known, ADA.public_key(), Signed({"ada": ben}), "v")
    with pytest.raises(ApprovalRefused, match="is none of those in the file of approvers"):
        approvals.check_new(known, EVE.public_key(), Signed({}), "v")


# Where signatures are


def test_signatures_lie_beside_a_package_and_leave_it_as_it_is(tmp_path: Path) -> None:
    """Each once; the version stays."""
    folder = toys.write_package(tmp_path, "linear")
    ada, ben = approval(ADA, "ada", SHA256), approval(BEN, "ben", SHA256)
    assert approvals.read(folder) == Signatures()

    approvals.add(folder, [ada])
    approvals.add(folder, [ada, ben])

    assert approvals.read(folder) == Signatures((ada, ben))
    assert approvals.beside(folder).parent == folder.parent
    assert {p.name for p in folder.parent.iterdir()} == {
        folder.name,
        f"{folder.name}.signatures.json",
    }


def test_no_number_of_signatures_keeps_an_approvers_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is nobody's here may be somebody's elsewhere: so much of it stays, the first of it."""
    folder = toys.write_package(tmp_path, "linear")
    sha256 = read_manifest(folder).digest
    ada, *strangers = [
        approval(key, name, sha256)
        for key, name in ((ADA, "ada"), *((EVE, f"eve {i}") for i in range(MOST + 20)))
    ]
    forged = strangers[0].model_copy(update={"key_id": ada.key_id})
    approvals.add(folder, [forged, *strangers], write_approvers(tmp_path))
    assert approvals.read(folder).found == (forged, *strangers[: MOST - 1])
    assert "21 signatures that are nobody's are left out" in caplog.text

    approvals.add(folder, [ada], write_approvers(tmp_path))

    assert approvals.read(folder).found == (ada, forged, *strangers[: MOST - 1])
    approvals.add(folder, strangers, write_approvers(tmp_path))
    assert approvals.read(folder).found == (ada, forged, *strangers[: MOST - 1])


@pytest.mark.parametrize(
    ("text", "junk"),
    [
        ('{"signatures": "none"}', 1),
        ("what is this", 1),
        ("", 1),
        pytest.param(json.dumps({"signatures": [{}] * 200}), 200, id="many"),
        pytest.param(json.dumps({"signatures": ["x" * BYTES_MOST]}), 1, id="large"),
    ],
)
def test_what_are_no_signatures_is_counted_and_hinders_nobody(
    tmp_path: Path, text: str, junk: int
) -> None:
    """An approval takes its place."""
    folder = toys.write_package(tmp_path, "linear")
    approvals.beside(folder).write_text(text, encoding="utf-8")
    ada = approval(ADA, "ada", SHA256)

    assert approvals.read(folder) == Signatures(junk=junk)
    approvals.add(folder, [ada])
    assert approvals.read(folder) == Signatures((ada,))


def test_a_file_of_signatures_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    """It is a folder."""
    folder = toys.write_package(tmp_path, "linear")
    approvals.beside(folder).mkdir()

    with pytest.raises(PackageInvalid, match="cannot be read"):
        approvals.read(folder)
    with pytest.raises(PackageInvalid, match="cannot be read"):
        approvals.add(folder, [approval(ADA, "ada", SHA256)])


def test_approvals_on_record_are_found_again(tmp_path: Path) -> None:
    """Each with what was signed, so that they prove themselves; no others, and nothing else."""
    package = toys.load_package("linear")
    signed = approval(ADA, "ada", package.digest)
    log = SqlAuditLog(f"sqlite:///{tmp_path}/records.db", SEALING)
    try:
        record = approvals.record(log, package, signed, NOON)

        assert log.get(record.id) == record
        assert (record.kind, record.model_version) == ("approval", package.version)
        assert record.body["approver"] == "ada"
        assert record.body["key_id"] == keys.key_id(ADA.public_key())
        assert approvals.recorded(log, toys.NAME, package.version) == Signatures((signed,))
        assert approvals.recorded(log, toys.NAME, "000000000000") == Signatures()
        with pytest.raises(PackageInvalid, match="no approval"):
            approvals.record(log, package, signed.model_copy(update={"statement": "{}"}), NOON)
        assert log.count() == 1
        log.append([replace(record, id=new_id(), body={"signature": "lost"})]).result()
        junk = [replace(record, id=new_id(), body={}) for _ in range(100)]
        log.append(junk).result()
        assert approvals.recorded(log, toys.NAME, package.version) == Signatures((signed,), 101)
    finally:
        log.close()
