"""Records: times as they are written and read, and history a page at a time."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credit_risk.audit.records import every, instant, microseconds, moment, pages, unrequested
from tests.audit.test_log import NOON, made
from tests.recorded import Kept

if TYPE_CHECKING:
    from credit_risk.audit.records import Filters


@given(st.datetimes(timezones=st.just(UTC)))
def test_times_go_to_microseconds_and_back(at: datetime) -> None:
    """Exactly, before the epoch too; and a text of them is the same time."""
    since_epoch = microseconds(at)
    assert instant(since_epoch) == at
    assert datetime.fromisoformat(moment(since_epoch)) == at


def test_a_time_is_utc_unless_it_says_otherwise() -> None:
    """And none is none."""
    noon = datetime(2027, 1, 15, 8)  # noqa: DTZ001 - without a zone
    east = datetime(2027, 1, 15, 10, tzinfo=timezone(timedelta(hours=2)))
    assert microseconds(noon) == microseconds(east) == NOON
    assert microseconds(None) is None
    assert moment(NOON) == "2027-01-15T08:00:00.000000Z"


@pytest.mark.parametrize("size", [1, 7, 17, 18, 500])
def test_pages_hold_every_record_of_a_time_once_the_newest_first(size: int) -> None:
    """However many fit on one, and nothing of other kinds or times."""
    records = [made(time=NOON + second) for second in range(23)]
    kept = Kept([*records, replace(records[5], id="refused", kind="refusal")])
    wanted = records[19:2:-1]
    within: Filters = {"kind": "decision", "since": NOON + 3, "until": NOON + 20}

    found = list(pages(kept, size=size, **within))

    assert [record for page in found for record in page] == wanted
    assert all(len(page) <= size for page in found)
    assert list(every(kept, **within)) == wanted


def test_the_next_page_is_not_read_before_it_is_asked_for() -> None:
    """So that memory does not grow with history."""
    kept = Kept([made(time=NOON + second) for second in range(10)])
    reading = pages(kept, size=2)

    next(reading)
    next(reading)

    assert kept.limits == [2, 2]


def test_what_no_request_asked_for_answers_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of now, with ids of its own, and says of a package what it is told."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_000 * NOON)

    one, other = (unrequested("start", "toy", {"by": "ada"}, model_version="v") for _ in range(2))

    assert (one.kind, one.portfolio, one.time, one.body) == ("start", "toy", NOON, {"by": "ada"})
    assert (one.model_version, one.policy_version) == ("v", None)
    assert (one.decision, one.status, one.personal, one.about) == (None, None, None, None)
    assert len({one.id, one.request_id, other.id, other.request_id}) == 4
    again = unrequested("start", "toy", {}, record_id="1", at=7, about="2")
    assert again == replace(
        one, id="1", time=7, about="2", body={}, model_version=None, request_id=again.request_id
    )
