"""`credit-risk audit`."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from credit_risk.audit.keys import Sealing
from credit_risk.cli.exits import MISQUEUED, OTHERWISE, UNTIMELY
from tests import toys
from tests.commands import (
    Outcome,
    Place,
    decide,
    refused,
)
from tests.sealing import SEALING

if TYPE_CHECKING:
    from collections.abc import Callable

    from credit_risk.package import ModelPackage


def test_a_log_is_verified_signed_exported_and_proven(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """From the first checkpoint to the proof of one record; each command also as JSON."""
    refused(run("audit", "public-key"), 1, "no signing key")
    refused(run("audit", "checkpoint"), 3, "no records yet")
    (first,) = decide(place, trees_package, toys.SAFE)
    anchor, key, proof = (place.folder / name for name in ("anchor.json", "key.pem", "proof.json"))

    assert run("audit", "checkpoint", "--export", str(anchor)).out == (
        "checkpoint 1: records 1 to 1\n"
    )
    key.write_text(run("audit", "public-key").out, encoding="utf-8")
    decide(place, trees_package, toys.RISKY)
    told = run("audit", "verify", "--public-key", str(key), "--anchor", str(anchor), "--open")
    assert told.code == 0
    assert "2 records, 1 checkpoints; whole" in told.out
    assert "the last 1 records" in told.out
    assert "opened: 2" in told.out
    assert "note:" not in told.err
    assert "weaker" not in told.err

    assert run("audit", "proof", first, "--out", str(proof)).out.startswith(f"{proof}: The record")
    assert json.loads(proof.read_text(encoding="utf-8")) == run("audit", "proof", first).json()
    assert (
        run("audit", "checkpoint", "--json").json()["key_id"]
        == (run("audit", "public-key", "--json").json()["key_id"])
    )
    assert [json.loads(c["statement"])["last"] for c in run(*LIST, "--json").json()] == [2, 1]
    assert run(*LIST).out.count("\n") == 3
    own = run("audit", "verify", "--json")
    assert own.json()["whole"] is True
    assert "the server's own key" in own.json()["notes"][0]
    refused(run("audit", "proof", "x"), 3, "no record has such an id")


LIST = ("audit", "checkpoints")


def test_a_log_that_is_not_whole_ends_with_its_own_code(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """And names the record, in text and as JSON."""
    first, second = decide(place, trees_package, toys.SAFE, toys.RISKY)
    run("audit", "checkpoint")
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("UPDATE records SET status = 201 WHERE sequence = 2")
        connection.execute("DELETE FROM records WHERE id = ?", (first,))
        connection.commit()
    told = run("audit", "verify")
    assert told.code == OTHERWISE
    assert f"changed: record 2 ({second})" in told.out
    assert "removed: record 1: " in told.out
    assert "NOT whole: 3 things are not as written" in told.out
    found = run("audit", "verify", "--json")
    assert found.code == OTHERWISE
    assert [finding["kind"] for finding in found.json()["findings"]] == [
        *("changed", "removed", "rewritten")
    ]


def test_a_lost_head_and_a_lost_log_are_findings(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """The first is named beside all others; the second is, where a checkpoint was kept."""
    decide(place, trees_package, toys.SAFE)
    anchor = place.folder / "anchor.json"
    run("audit", "checkpoint", "--export", str(anchor))
    (place.state / "newest-checkpoint.json").write_bytes(anchor.read_bytes())
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("DELETE FROM head")
        connection.commit()
    told = run("audit", "verify", "--json")
    assert told.code == OTHERWISE
    assert [finding["kind"] for finding in told.json()["findings"]] == ["head"]
    for file in place.state.glob("records.db*"):
        file.unlink()

    noted = run("audit", "verify")
    (place.state / "newest-checkpoint.json").unlink()
    anchored = run("audit", "verify", "--anchor", str(anchor), "--json")

    assert (noted.code, anchored.code) == (OTHERWISE, OTHERWISE)
    assert "removed: all of them" in noted.out
    assert [finding["kind"] for finding in anchored.json()["findings"]] == ["removed"]
    refused(run("audit", "verify"), 3, "no records yet")


def test_a_database_that_is_none_is_told_in_one_line(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Like a key or an anchor that is none."""
    decide(place, trees_package, toys.SAFE)
    run("audit", "checkpoint")
    other = place.folder / "other"
    other.write_bytes(b"\xff\xfe")
    for option in ("--public-key", "--anchor"):
        refused(run("audit", "verify", option, str(other)), 1, "is not text")
        refused(run("audit", "verify", option, "nowhere"), 3, "nowhere does not exist")
    other.write_text("none", encoding="utf-8")
    refused(run("audit", "verify", "--public-key", str(other)), 1, "not a public key")
    refused(run("audit", "verify", "--anchor", str(other)), 1, "not what was exported")
    (place.state / "records.db").write_bytes(b"x" * 9_000)
    refused(run("audit", "verify"), 4, "not a database")


def test_sealed_data_are_opened_only_with_keys(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With another key, the one that is needed is named, and no record is called altered."""
    decide(place, trees_package, toys.SAFE)
    run("audit", "checkpoint")
    own, other = SEALING.names[0], Sealing([bytes(32)]).names[0]
    monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", base64.b64encode(bytes(32)).decode())
    told = run("audit", "verify", "--open")
    assert told.code == 1
    assert "1 records, 1 checkpoints; whole" in told.out
    line = f"records were not opened: 1 sealed under encryption key {own}; given is {other}\n"
    assert told.err.endswith(line)
    found = run("audit", "verify", "--open", "--json")
    assert (found.code, found.json()["unopened"], found.json()["whole"]) == (1, {own: 1}, True)
    monkeypatch.delenv("CREDIT_RISK_ENCRYPTION_KEYS")
    refused(run("audit", "verify", "--open"), 1, "no encryption keys are set")


def test_a_log_that_went_back_is_signed_again_once_it_is_acknowledged(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """What is gone is said before it is done, in text and as JSON."""
    decide(place, trees_package, toys.SAFE)
    run("audit", "checkpoint")
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("DELETE FROM checkpoints")
        connection.commit()
    refused(run("audit", "checkpoint"), 1, "checkpoint 1 is gone", "credit-risk audit acknowledge")
    note = place.state / "newest-checkpoint.json"
    seen = run("audit", "verify")
    assert (seen.code, f"--anchor {note} makes that a finding" in seen.err) == (0, True)
    assert run("audit", "verify", "--anchor", str(note)).code == OTHERWISE
    why = ("--reason", "restored the backup of Sunday")

    told = run("audit", "acknowledge", *why)
    assert "not there as it was: checkpoint 1, up to record 1, signed 20" in told.out
    assert "newest on record: none" in told.out
    assert "nothing is acknowledged yet" in told.err
    refused(run("audit", "checkpoint"), 1, "checkpoint 1 is gone")
    done = run("audit", "acknowledge", *why, "--yes", "--json").json()
    assert json.loads(done["gone"]["statement"])["checkpoint"] == 1
    assert done["newest"] is None
    shown = run("decisions", "show", done["acknowledged"], "--json").json()
    assert (shown["kind"], shown["body"]["reason"]) == ("acknowledgement", why[1])
    assert run("audit", "checkpoint").out == "checkpoint 1: records 1 to 2\n"
    again = run("audit", "acknowledge", *why, "--yes")
    refused(again, 1, "nothing can be acknowledged", f"{note} is on record as it was")
    assert run("audit", "acknowledge", "--reason", " ").code == 2
    note.write_bytes(b"x")
    assert "is not the checkpoint that was noted there" in run("audit", "verify").err


def test_times_that_cannot_be_right_end_with_a_code_of_their_own(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log is whole; as JSON too."""
    decide(place, trees_package, toys.SAFE)
    early = time.time_ns() - 7_200 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: early)
    told = run("audit", "verify")
    assert told.code == UNTIMELY
    assert "1 records, 0 checkpoints; whole" in told.out
    assert "clock: record 1 was made up to 20" in told.out
    assert len(run("audit", "verify", "--json").json()["clocks"]) == 1


def test_what_cannot_be_acknowledged_is_not(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Where nothing was seen, and where nobody could sign behind what is left."""
    decide(place, trees_package, toys.SAFE, toys.RISKY)
    why = ("--reason", "restored the backup of Sunday", "--yes")
    refused(run("audit", "acknowledge", *why), 1, "newest-checkpoint.json is not there")
    run("audit", "checkpoint")
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("DELETE FROM checkpoints")
        connection.execute("DELETE FROM records WHERE sequence = 1")
        connection.commit()

    told = ("checkpoint 1 is gone", "would not help", "record 1 is missing")
    refused(run("audit", "acknowledge", *why), 1, *told)
    assert run("decisions", "list", "--kind", "acknowledgement", "--json").json() == []


def test_an_empty_log_is_a_finding_where_a_server_had_seen_it_signed(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """A note that nobody has signed proves nothing."""
    decide(place, trees_package, toys.SAFE, toys.RISKY)
    run("audit", "checkpoint")
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("DELETE FROM checkpoints")
        connection.execute("DELETE FROM records")
        connection.execute("UPDATE head SET sequence = 0, hash = zeroblob(32)")
        connection.commit()

    told = run("audit", "verify")
    assert told.code == OTHERWISE
    assert "removed: records 1 to 2: all of them, which checkpoint 1 was signed for" in told.out
    note = place.state / "newest-checkpoint.json"
    forged = json.loads(note.read_text()) | {"signature": base64.b64encode(bytes(64)).decode()}
    note.write_text(json.dumps(forged), encoding="utf-8")
    assert run("audit", "verify").code == 0


def test_a_queue_that_is_otherwise_is_no_broken_chain(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """It ends with a code of its own, and is made anew from the records."""
    decide(place, trees_package, toys.SAFE, toys.RISKY)
    assert run("audit", "queue").out == "queue of reviews: as the records say\n"
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute(
            "INSERT INTO reviews (decision_id, portfolio, time, state, version) "
            "VALUES ('d-1', 'toy', 1, 'open', 0)"
        )
        connection.commit()
    told = run("audit", "verify")
    assert told.code == MISQUEUED
    assert "2 records, 0 checkpoints; whole" in told.out
    assert "queue of reviews: extra: decision d-1 is in the queue, and does not wait" in told.out
    assert "--rebuild" in told.err
    found = run("audit", "queue", "--json")
    assert (found.code, found.json()["differences"]) == (MISQUEUED, 1)
    assert run("audit", "queue", "--rebuild").out == (
        "queue of reviews: mended 1 cases\nqueue of reviews: as the records say\n"
    )
    assert run("audit", "verify", "--json").json()["queue"] == {"differences": 0, "cases": []}


def test_without_a_key_the_chain_is_verified_and_signatures_are_not(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """That nobody looked at them is said in text and as JSON, and is no fault."""
    decide(place, trees_package, toys.SAFE, toys.RISKY)
    told = run("audit", "verify")
    assert told.code == 0
    assert "2 records, 0 checkpoints; whole" in told.out
    assert "signatures were NOT checked" in told.err
    assert run("audit", "verify", "--json").json()["signatures_checked"] is False
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("UPDATE records SET status = 201 WHERE sequence = 2")
        connection.commit()
    assert run("audit", "verify").code == OTHERWISE
