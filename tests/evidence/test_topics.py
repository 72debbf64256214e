"""A topic is statements, each with what it rests on."""

from __future__ import annotations

import hashlib

from credit_risk.evidence.topics import Rests, Topic, digest_of, short


def test_statements_that_rest_on_the_same_are_told_with_it() -> None:
    """In their order; findings and figures are for the top of the pack."""
    topic = Topic(findings=["It does not hold."], figures={"rows": "2"})
    topic.say(Rests("a file", "ab"), "One.", "Two.")

    told = topic.to_json("A title")

    assert [(s["text"], s["rests_on"], s["sha256"]) for s in told["statements"]] == [
        ("One.", "a file", "ab"),
        ("Two.", "a file", "ab"),
    ]
    assert (told["title"], told["missing"], told["tables"]) == ("A title", None, [])
    assert not {"findings", "figures"} & told.keys()


def test_hashes_are_digested_one_behind_the_other() -> None:
    """As anybody can with the columns at hand; numbers are shortened for people."""
    assert digest_of([b"ab", b"c"]) == hashlib.sha256(b"abc").hexdigest()
    assert (short(0.123456), short(7), short("x")) == ("0.1235", "7", "x")
