"""Traffic: what is sent, what is made of the answers, and a server that does not behave."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

from credit_risk import simulation
from credit_risk.cli import traffic
from credit_risk.cli.traffic import Answer, Latencies, People, Request, Server, Tally
from credit_risk.errors import Unreachable
from credit_risk.simulation import Population, Scenario
from tests import toys
from tests.answering import APPROVED, Asked, answering, decided

if TYPE_CHECKING:
    from collections.abc import Iterator

TOYS = Population(toys.schema(), toys.population())
STABLE = Scenario(name="stable", title="As known")
ONE = Request("/predict", b"{}", 1, 0)
WRONG = Request("/predict", b"{}", 1, 1)
MANY = Request("/predict/batch", b"{}", 3, 1)


def wanted(rows: int | None = None, invalid: float = 0.0, seed: int = 1) -> Iterator[Request]:
    """Requests about toy applicants."""
    blocks = simulation.blocks(TOYS, STABLE, seed, rows)
    return traffic.requests(simulation.applicants(TOYS.schema, blocks, invalid, seed), seed)


def sent(asked: Asked, requests: Iterator[Request], **more: Any) -> Tally:  # noqa: ANN401 - of any type
    """Send the requests as fast as can be; what came back."""
    tally = Tally()
    traffic.send(Server(asked.url, toys.NAME, "0" * 12), requests, tally, 1e6, **more)
    return tally


def counted(*answers: tuple[Request, int, object]) -> dict[str, Any]:
    """What is made of answers."""
    tally = Tally()
    for request, status, body in answers:
        tally.answered(request, Answer(status, json.dumps(body).encode(), 0.01))
    return tally.to_json()


# What is sent


def test_all_kinds_of_requests_are_sent_as_often_as_they_should() -> None:
    """Most about one applicant; the same seed, the same requests."""
    some = list(islice(wanted(), 4_000))

    routes = Counter(request.route for request in some)
    for route, share in traffic.MIX.items():
        assert routes[route] / 4_000 == pytest.approx(share, abs=0.015)
    assert some == list(islice(wanted(), 4_000))
    for request in some[:200]:
        body = json.loads(request.body)
        together = body.get("applications", [body])
        assert len(together) == request.applications
        assert (len(together) > 1) == (request.route == traffic.BATCH_ROUTE)


def test_no_applicant_is_left_out_at_the_end() -> None:
    """A last batch is as long as it gets."""
    assert sum(request.applications for request in wanted(1_001)) == 1_001


def test_requests_know_how_many_of_theirs_are_wrong() -> None:
    """One in five, in batches as well."""
    some = list(wanted(4_000, invalid=0.2))

    assert sum(request.wrong for request in some) / 4_000 == pytest.approx(0.2, abs=0.02)
    assert any(1 <= request.wrong < request.applications for request in some)


# What is made of answers


def test_decisions_and_refusals_are_counted_as_they_should_be() -> None:
    """Of one application and of many."""
    problem = {"type": "/problems/invalid-application"}
    results = {"results": [APPROVED, {"problem": problem}, {"decision": "DECLINE"}]}

    found = counted((ONE, 200, APPROVED), (WRONG, 422, problem), (MANY, 200, results))

    assert (found["requests"], found["applications"]) == (3, 5)
    assert found["decisions"] == {"APPROVE": 2, "DECLINE": 1}
    assert (found["refused"], found["failures"]) == (2, {})
    assert set(found["latency_ms"]) == {"/predict", "/predict/batch"}


@pytest.mark.parametrize(
    ("request_", "status", "body", "failure"),
    [
        (ONE, 422, {"type": "/problems/invalid-application"}, "422 invalid-application"),
        (ONE, 503, {"type": "/problems/overloaded"}, "503 overloaded"),
        (MANY, 422, {"type": "/problems/invalid-batch"}, "422 invalid-batch"),
        (WRONG, 200, APPROVED, "other applications refused than are wrong"),
        (MANY, 200, {"results": [APPROVED] * 3}, "other applications refused than are wrong"),
        (ONE, 200, 5, "200 with an answer that is none"),
        (ONE, 502, {}, "502 with an answer that is none"),
    ],
)
def test_every_other_answer_is_a_failure_by_its_name(
    request_: Request, status: int, body: object, failure: str
) -> None:
    """A valid application refused, a wrong one decided, what is no answer."""
    assert counted((request_, status, body))["failures"] == {failure: 1}


def test_percentiles_are_exact_to_a_hundredth() -> None:
    """In memory that does not grow with the number."""
    latencies = Latencies()
    for ms in range(1, 1_001):
        latencies.add(ms / 1e3)

    for share in (0.5, 0.95, 0.99):
        assert latencies.percentile(share) == pytest.approx(share, rel=0.02)
    assert Latencies().percentile(0.5) != Latencies().percentile(0.5), "no number"


# Sending


def test_every_request_is_sent_once_and_answered() -> None:
    """Over several connections; those with an idempotency key twice."""
    with answering(decided) as asked:
        tally = sent(asked, wanted(600, invalid=0.1))

    expected = [r for request in wanted(600, invalid=0.1) for r in [request] * (1 + request.keyed)]
    bodies = [json.dumps(body).encode() for _, body in asked.got]
    assert sorted(bodies) == sorted(request.body for request in expected)
    assert tally.failures == {}
    assert tally.applications == tally.decisions.total() + tally.refused == 600
    assert tally.refused == sum(request.wrong for request in wanted(600, invalid=0.1))
    assert tally.repeated == len(expected) - tally.requests > 0


def test_an_idempotency_key_is_used_for_one_request_and_gets_one_answer() -> None:
    """Another answer is a failure, unless the first was an error, which is not kept."""
    keyed = Request("/predict", b"{}", 1, 0, keyed=True)
    error = (500, {"type": "/problems/internal-error"})
    answers = iter([(200, APPROVED)] * 2 + [(200, APPROVED), (200, {"decision": "DECLINE"})])
    after_error = iter([error, (200, APPROVED)])

    with answering(lambda *_: next(answers)) as asked:
        tally = sent(asked, iter([keyed, keyed]), connections=1)
        keys = asked.keys
    with answering(lambda *_: next(after_error)) as asked:
        failed = sent(asked, iter([keyed]), connections=1)

    assert tally.failures == {"another answer to the same idempotency key": 1}
    assert (tally.requests, tally.repeated) == (2, 2)
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert failed.failures == {"500 internal-error": 1}


def test_people_decide_a_share_of_what_was_referred() -> None:
    """A second one where the first only proposes; approved and declined for reasons there are."""
    referred = {"decision": "REVIEW", "decision_id": "1", "reasons": [{"code": "TOO_DEAR"}]}
    steps: list[Any] = []

    def answer(route: str, body: Any) -> tuple[int, object]:  # noqa: ANN401 - any JSON
        if route == "/predict":
            return 200, referred
        assert route == "/decisions/1/review"
        steps.append(body)
        wants_second = body["decision"] == "DECLINE" and body["reviewer"] == traffic.REVIEWERS[0]
        return 200, {"state": "proposed" if wants_second else "closed"}

    with answering(answer) as asked:
        tally = sent(asked, iter([ONE] * 400), people=People(0.5, ["SEEN", "KNOWN"]))

    assert tally.failures == {}
    assert tally.reviews.total() == pytest.approx(200, abs=50)
    assert tally.reviews["APPROVE"] > tally.reviews["DECLINE"] > 0
    given = {(step["decision"], step["reason"]) for step in steps}
    assert given == {("APPROVE", "SEEN"), ("APPROVE", "KNOWN"), ("DECLINE", "TOO_DEAR")}
    assert len(steps) == tally.reviews["APPROVE"] + 2 * tally.reviews["DECLINE"]


def test_people_override_a_decline_now_and_then() -> None:
    """And leave alone what was approved; a review refused is a failure."""
    declined = {"decision": "DECLINE", "decision_id": "1", "reasons": []}

    def answer(route: str, _: object) -> tuple[int, object]:
        return (200, declined) if route == "/predict" else (409, {"type": "/problems/any"})

    with answering(answer) as asked:
        tally = sent(asked, iter([ONE] * 400), people=People(1.0, ["SEEN"]))
    with answering(decided) as approving:
        sent(approving, wanted(100), people=People(1.0, ["SEEN"]))

    assert 0 < tally.failures["409 to a review"] < 40
    assert tally.reviews == {}
    assert {path for path, _ in approving.got} == set(traffic.MIX)


def test_it_ends_after_the_time_given() -> None:
    """However many there are."""
    done: list[int] = []
    with answering(decided) as asked:
        tally = sent(asked, wanted(), seconds=0.3, progress=done.append)

    assert tally.seconds >= 0.3
    assert tally.requests + tally.repeated == len(asked.got) > 0
    assert done == sorted(done)
    assert done[-1] == tally.applications


def test_requests_come_at_the_rate_asked_for() -> None:
    """Here so few that a fast one would show: 40 at 200 a second take a fifth of a second."""
    tally = Tally()
    with answering(decided) as asked:
        server = Server(asked.url, toys.NAME, "0" * 12)
        traffic.send(server, islice(wanted(), 40), tally, rate=200.0)

    assert tally.requests == 40
    assert tally.seconds > 0.08


def test_a_request_turned_away_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few times; then it has failed."""
    monkeypatch.setattr(traffic, "PAUSES", (0.0, 0.0))
    busy = (503, {"type": "/problems/overloaded"})
    answers = iter([busy, (200, APPROVED), busy, busy, busy])

    with answering(lambda *_: next(answers)) as asked:
        tally = sent(asked, iter([ONE, ONE]), connections=1)

    assert (tally.requests, tally.again) == (2, 3)
    assert tally.decisions == {"APPROVE": 1}
    assert tally.failures == {"503 overloaded": 1}


def test_a_connection_that_breaks_is_a_failure_and_opened_anew() -> None:
    """The next request is answered."""
    answers = iter([None, (200, APPROVED)])

    with answering(lambda *_: next(answers)) as asked:
        tally = sent(asked, iter([ONE, ONE]), connections=1)

    assert tally.failures == {"RemoteDisconnected": 1}
    assert tally.decisions == {"APPROVE": 1}


def test_a_server_that_has_gone_is_a_failure_of_each_request() -> None:
    """Without an end of its own: it may come back."""
    with answering(decided) as asked:
        pass

    assert sent(asked, islice(wanted(), 5)).failures == {"ConnectionRefusedError": 5}


def test_an_interruption_ends_it_with_what_was_done() -> None:
    """The tally has all that was answered."""
    tally = Tally()

    def interrupted(done: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with answering(decided) as asked, pytest.raises(KeyboardInterrupt):
        traffic.send(
            Server(asked.url, toys.NAME, "0" * 12), wanted(), tally, 1e6, progress=interrupted
        )

    assert tally.applications == tally.decisions.total() >= 20
    assert tally.seconds > 0


# Asking


def test_a_server_says_what_it_serves() -> None:
    """With or without a slash behind its URL."""
    with answering(decided) as asked:
        assert traffic.ask(f"{asked.url}/") == Server(asked.url, toys.NAME, "0" * 12)


def test_what_is_no_server_of_ours_is_told() -> None:
    """Nobody there, and somebody else."""
    with answering(decided, version={}) as asked, pytest.raises(Unreachable, match="not a server"):
        traffic.ask(asked.url)
    with pytest.raises(Unreachable, match="does not answer: Connection refused"):
        traffic.ask(asked.url)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("http://localhost:3000", True),
        ("http://127.0.0.1", True),
        ("http://127.1.2.3:80/x", True),
        ("http://[::1]:3000", True),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1:3000", False),
        ("http://server:3000", False),
        ("http://127.0.0.1@credit.example.com/", False),
        ("http://0.0.0.0:3000", False),
    ],
)
def test_only_this_machine_is_loopback(url: str, ours: bool) -> None:  # noqa: FBT001 - a table
    """A name is not looked up: what it means may change."""
    assert traffic.is_loopback(url) is ours
