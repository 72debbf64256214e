"""`credit-risk promote`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import toys
from tests.commands import Outcome, Place, refused
from tests.signing import ADA, BEN, write_approvers, write_key

if TYPE_CHECKING:
    from collections.abc import Callable

POLICY = """\
portfolio: bicycle-leases
version: 1.0.0
criteria:
  score_psi: {most: 100}
  agreement: {least: 0.5, optional: true}
"""


@pytest.fixture(autouse=True)
def _gate(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two people have to approve, who are Ada and Ben."""
    monkeypatch.setenv("CREDIT_RISK_APPROVERS_FILE", str(write_approvers(place.folder)))
    policy = place.folder / "portfolios" / toys.NAME / "promotion.yaml"
    policy.write_text(POLICY, encoding="utf-8")


def test_a_candidate_decides_once_two_have_approved_it(
    run: Callable[..., Outcome], place: Place
) -> None:
    """Each run says what is missing, and leaves a record unless it was only a check."""
    ada, ben = (str(write_key(place.folder, key)) for key in (ADA, BEN))
    checked = run("promote", place.linear, "--check")
    assert (checked.code, checked.err) == (1, "")
    assert "approved by nobody; 2 have to" in checked.out
    assert "lacking: 2 more" in checked.out
    assert checked.out.endswith(f"{place.trees} goes on deciding\n")
    rows = [line.split() for line in checked.out.splitlines()]
    assert [row[:3] for row in rows[1:4]] == [
        ["met", "Package", "is"],
        ["met", "Stability", "of"],
        ["not", "shown", "Share"],
    ]

    run("approve", place.linear, "--key", ada)
    told = run("promote", place.linear, "--json")
    assert told.code == 1
    found = told.json()
    assert (found["outcome"], found["lacking"], found["activation"]) == ("UNAPPROVED", 1, None)
    assert run("decisions", "show", found["record"], "--json").json()["kind"] == "promotion"
    run("approve", place.linear, "--key", ben)
    assert "may decide" in run("promote", place.linear, "--check").out

    done = run("promote", place.linear)
    assert done.code == 0
    assert "approved by ada, ben; 2 have to" in done.out
    said = done.out.splitlines()[-1]
    assert said.startswith(f"{toys.NAME}: {place.linear} decides from now on")
    record = run("decisions", "show", said.rpartition(" ")[2], "--json").json()
    assert (record["kind"], record["body"]["action"]) == ("activation", "promote")
    refused(run("promote", place.linear), 1, f"{place.linear} decides already")
    kinds = run("decisions", "list", "--kind", "promotion", "--json").json()
    assert len(kinds) == 2


def test_a_refusal_names_each_criterion(run: Callable[..., Outcome], place: Place) -> None:
    """What was shown, and what is asked for."""
    policy = place.folder / "portfolios" / toys.NAME / "promotion.yaml"
    strict = POLICY.replace("100", "0.001").replace(", optional: true", "")
    policy.write_text(f"approvals: 0\n{strict}", encoding="utf-8")

    outcome = run("promote", place.linear)

    assert outcome.code == 1
    reasons = [line for line in outcome.out.splitlines() if line.startswith("refused: ")]
    assert reasons[0].startswith("refused: Stability of the score: ")
    assert "at most 0.001 is asked for" in reasons[0]
    assert reasons[1] == (
        "refused: Share of the same decisions: not shown, and at least 0.5 is asked for."
    )
    assert "lacking" not in outcome.out
