from __future__ import annotations

from contextlib import closing

from credit_risk.audit.log import SqlAuditLog
from credit_risk.windows import HOUR, Window
from monitoring import results
from monitoring.results import Result
from tests.sealing import SEALING

ALWAYS = Window(0, 100 * HOUR)


def result(since: int, body: int, *, kind: str = "drift", version: str = "a") -> Result:
    """Something found of an hour."""
    window = (since * HOUR, (since + 1) * HOUR)
    return Result("loans", version, kind, *window, 7, {"found": body, "not": float("nan")})


def test_a_window_has_its_newest_result_and_earlier_windows_keep_theirs(any_url: str) -> None:
    """In order of the windows; those of other kinds and packages are told apart."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:

        def keep(*found: Result) -> None:
            log.append((), alongside=results.keep(found)).result()

        keep(result(2, 1), result(1, 2), result(1, 3, kind="retraining"))
        keep(result(2, 4), result(1, 5, version="b"))
        keep()

        found = results.find(log, "loans", "a", "drift", ALWAYS)
        assert [(one.since // HOUR, one.body) for one in found] == [
            (1, {"found": 2, "not": None}),
            (2, {"found": 4, "not": None}),
        ]
        assert found[0] == result(1, 2)._replace(body={"found": 2, "not": None})
        assert [one.body["found"] for one in results.find(log, "loans", "b", "drift", ALWAYS)] == [
            5
        ]
        (other,) = results.find(log, "loans", "a", "retraining", ALWAYS)
        assert other.body["found"] == 3
        assert results.find(log, "others", "a", "drift", ALWAYS) == []


def test_results_are_found_whose_windows_lie_within(any_url: str) -> None:
    """Not those that only begin or end in it."""
    with closing(SqlAuditLog(any_url, SEALING)) as log:
        found = [result(hour, hour) for hour in range(4)]
        log.append((), alongside=results.keep(found)).result()

        within = results.find(log, "loans", "a", "drift", Window(HOUR // 2, 3 * HOUR))
        assert [one.body["found"] for one in within] == [1, 2]
