"""A real Prometheus that looks at a real server, evaluates the rules and answers the dashboards.

It holds a made-up history besides, of a deployment called ``made-up`` whose ratios are known, and
of what other programs than the server expose.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from credit_risk import package, simulation
from credit_risk.manifest import MANIFEST
from credit_risk.serving.store import Store
from credit_risk.settings import Settings
from grafana.__main__ import FOLDER
from loadtests import applications, prometheus, server
from loadtests.prometheus import JOB, MONITOR, Prometheus
from tests.e2e.conftest import ROOT, starting_in
from tests.promql import filled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.e2e.conftest import RunningServer

pytestmark = pytest.mark.e2e

RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yaml"))
PORTFOLIO = "personal-loans"
PACKAGE = applications.folder(ROOT / "packages", PORTFOLIO, "default")
ROUNDS = 4
DECISIONS = 10 + 10 + 100 + 1
HISTORY_SECONDS = 6 * 3_600
STEP_SECONDS = 60
PER_STEP = {
    # Of 600 requests a minute 12 fail and 60 are slow: 0.02 and 0.1.
    'credit_http_requests_total{route="/predict",status_class="2xx",problem="none"}': 588,
    'credit_http_requests_total{route="/predict",status_class="5xx",problem="overloaded"}': 12,
    'credit_http_response_duration_seconds_bucket{route="/predict",le="0.05"}': 540,
    'credit_http_response_duration_seconds_count{route="/predict"}': 600,
    # A fifth and four fifths, where the reference has half and half.
    'credit_score_bin_total{portfolio="loans",model_version="a",bin="01"}': 20,
    'credit_score_bin_total{portfolio="loans",model_version="a",bin="02"}': 80,
    'credit_feature_bin_total{portfolio="loans",model_version="a",feature="age",bin="01"}': 20,
    'credit_feature_bin_total{portfolio="loans",model_version="a",feature="age",bin="02"}': 80,
    # Of other programs, which are not here.
    'otelcol_exporter_send_failed_spans_total{exporter="otlp/tempo"}': 1,
    'otelcol_exporter_send_failed_log_records_total{exporter="otlphttp/loki"}': 1,
    'traces_spanmetrics_latency_bucket{service="credit-risk-server",span_name="POST /predict",'
    'span_kind="SPAN_KIND_SERVER",le="0.004"}': 9,
    'traces_spanmetrics_latency_bucket{service="credit-risk-server",span_name="POST /predict",'
    'span_kind="SPAN_KIND_SERVER",le="+Inf"}': 10,
}
CONSTANT = {
    f'credit_{name}{{portfolio="loans",model_version="a",{feature}bin="{place}"}}': 0.5
    for name, feature in (
        ("score_bin_baseline_ratio", ""),
        ("feature_bin_baseline_ratio", 'feature="age",'),
    )
    for place in ("01", "02")
}
SHIFTED = (0.2 - 0.5) * math.log(0.2 / 0.5) + (0.8 - 0.5) * math.log(0.8 / 0.5)


@dataclass(frozen=True, slots=True)
class Watched:
    """A server that answered some requests, and the Prometheus that saw it and who monitors it."""

    prometheus: Prometheus
    url: str
    version: str
    at: float


def history(until: int) -> str:
    """The made-up history up to a time, in OpenMetrics' text."""
    lines = []
    for series, each in (PER_STEP | CONSTANT).items():
        labelled = series.replace("{", '{job="made-up",instance="nowhere",')
        for step in range(HISTORY_SECONDS // STEP_SECONDS):
            at = until - HISTORY_SECONDS + step * STEP_SECONDS
            lines.append(f"{labelled} {each if series in CONSTANT else step * each} {at}")
    return "\n".join([*lines, "# EOF\n"])


def quick_rules(folder: Path) -> list[Path]:
    """The rules, every group evaluated each second; drift that lasts a second is told."""
    quick = []
    for path in RULES:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in document["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                if rule.get("alert") == "CreditDriftMajor":
                    rule["for"] = "1s"
        quick.append(folder / path.name)
        quick[-1].write_text(yaml.safe_dump(document), encoding="utf-8")
    return quick


class Caller:
    """Asks a server, each call over one of a few connections in turn, so that both workers work."""

    def __init__(self, clients: Iterable[httpx.Client]) -> None:
        self._clients = itertools.cycle(clients)

    def get(self, path: str) -> None:
        """Ask for a page."""
        next(self._clients).get(path)

    def post(
        self, path: str, body: object, headers: dict[str, str] | None = None, status: int = 200
    ) -> Any:  # noqa: ANN401 - JSON
        """The answer of a call."""
        answer = next(self._clients).post(path, json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()


@contextlib.contextmanager
def calling(url: str) -> Iterator[Caller]:
    """A caller over four connections."""
    with contextlib.ExitStack() as stack:
        yield Caller(
            [
                stack.enter_context(httpx.Client(base_url=url, timeout=60, verify=server.TLS))
                for _ in range(4)
            ]
        )


def traffic(call: Caller, number: int) -> list[str]:
    """Some of everything, `DECISIONS` of them decisions; returns the ids of those approved."""
    drawn = applications.drawn(PACKAGE, 120, seed=number)
    for application in drawn[:10]:
        call.post("/predict", application)
    for application in drawn[10:20]:
        call.post("/explain", application)
    batch = call.post("/predict/batch", {"applications": [*drawn[20:], {}]})
    for _ in range(2):
        call.post("/predict", drawn[0], {"Idempotency-Key": f"key-{number}"})
    call.post("/predict", drawn[0] | {"person_age": -1}, status=422)
    call.get(f"/nowhere/{number}")
    by_outcome = {row["decision"]: row["decision_id"] for row in batch["results"][:-1]}
    verdict = {"decision": "APPROVE", "reason": "INFORMATION_VERIFIED", "note": "Seen."}
    call.post(f"/decisions/{by_outcome['REVIEW']}/review", {"reviewer": "one", **verdict})
    for reviewer in ("one", "two"):
        path = f"/decisions/{by_outcome['DECLINE']}/review"
        call.post(path, {"reviewer": reviewer, **verdict})
    return [row["decision_id"] for row in batch["results"][:-1] if row["decision"] == "APPROVE"]


@contextlib.contextmanager
def monitoring(environment: dict[str, str], port: int, log: Path) -> Iterator[None]:
    """The monitoring job, every three seconds."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [
                *("setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "monitoring", "run"),
                *("--every", "0.05", "--portfolio", PORTFOLIO, "--metrics-port", str(port)),
            ],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def known_later(serving: RunningServer, folder: Path, decisions: list[str]) -> None:
    """What becomes known of decisions afterwards: outcomes, and the applicants' groups."""
    today = datetime.now(UTC).date()
    outcomes, groups = folder / "outcomes.csv", folder / "groups.csv"
    rows = [f"{one},{int(i % 6 == 0)},{today}" for i, one in enumerate(decisions)]
    outcomes.write_text("\n".join(["decision_id,defaulted,observed", *rows]), encoding="utf-8")
    rows = [f"{one},{'north' if i % 3 else 'south'}" for i, one in enumerate(decisions)]
    groups.write_text("\n".join(["decision_id,value", *rows]), encoding="utf-8")
    for told in (
        serving.command("outcomes", "add", str(outcomes)),
        serving.command("groups", "add", str(groups), "--attribute", "region"),
    ):
        assert told.returncode == 0, told.stderr + told.stdout


def challenged(serving: RunningServer, folder: Path) -> None:
    """Have the package that decides challenged by one that decides the same."""
    files = {
        path.relative_to(PACKAGE).as_posix(): path.read_bytes()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    files["card.md"] += b"\n"
    made = package.write(folder / "challenger", PORTFOLIO, files)
    version = Store(Settings(state_dir=Path(serving.environment["STATE_DIR"]))).add(made)
    told = serving.command("challenge", version, "--share", "0.05")
    assert told.returncode == 0, told.stderr


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A server of two workers after some minutes' worth of traffic, looked at each second."""
    try:
        promtool = Path(prometheus.program()).with_name("promtool")
    except prometheus.Missing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("prometheus")
    seed, storage = folder / "history.om", folder / "storage"
    seed.write_text(history(int(time.time())), encoding="utf-8")
    subprocess.run(  # noqa: S603 - Prometheus' own program
        [promtool, "tsdb", "create-blocks-from", "openmetrics", seed, storage],
        check=True,
        capture_output=True,
    )
    with starting_in(folder) as starting:
        # Nobody is there: what becomes of asking is shown all the same.
        nowhere = f"http://127.0.0.1:{server.free_port()}"
        serving = starting(checkpoint_seconds="1", registry_uri=nowhere)
        challenged(serving, folder)
        port = server.free_port()
        with (
            prometheus.running(
                folder,
                [serving.url.removeprefix("http://")],
                monitors=[f"127.0.0.1:{port}"],
                rules=quick_rules(folder),
                storage=storage,
                retention="100y",
            ) as running,
            contextlib.ExitStack() as started,
        ):
            approved: list[str] = []
            for number in range(ROUNDS):
                with calling(serving.url) as caller:
                    approved += traffic(caller, number)
                asked = DECISIONS * (number + 1)
                until(running, f'sum(credit_decisions_total{{job="{JOB}"}}) >= {asked}')
            known_later(serving, folder, approved)
            started.enter_context(monitoring(serving.environment, port, folder / "monitoring.log"))
            version = server.running(serving.url).version
            # At a moment when the server was looked at and the rules were evaluated since.
            fields = f'count(credit:feature_psi:1d{{job="{JOB}"}}) >= 11'
            found = f'increase(credit_monitor_runs_total{{job="{MONITOR}",outcome="done"}}[5m]) > 0'
            same = f'credit_shadow_decisions_total{{job="{JOB}",outcome="same"}}'
            compared = f"increase({same}[5m]) > 0"
            seen = f'up{{job="{JOB}"}} == 1 and on () {found} and on () {compared}'
            at = until(running, f"{fields} and on () {seen}")
            yield Watched(running, serving.url, version, at)


def until(running: Prometheus, expression: str) -> float:
    """Wait until an expression gives something; returns a time at which it does."""
    for _ in range(1_200):
        at = time.time()
        if running.query(expression, at):
            return at
        time.sleep(0.05)
    pytest.fail(f"never seen: {expression}")


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each query of each panel, but those of logs."""
    for path in sorted(FOLDER.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                if panel["type"] != "logs":
                    yield f"{path.stem}: {panel['title']}: {target['refId']}", target


def test_every_panel_shows_something_under_the_names_it_promises(watched: Watched) -> None:
    """Each query has series, each with all labels of its legend, and no value is NaN."""
    chosen = {"job": JOB, "instance": ".+", "portfolio": PORTFOLIO, "feature": "person_income"}
    wrong = {}
    for name, target in panels():
        expression = filled(target["expr"], model_version=watched.version, **chosen)
        found = watched.prometheus.query(expression, watched.at)
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        if not found:
            wrong[name] = f"nothing: {expression}"
        elif any(math.isnan(sample.value) for sample in found):
            wrong[name] = f"NaN: {expression}"
        elif any(not sample.labels.get(label) for sample in found for label in named):
            wrong[name] = f"no {named}: {found[0].labels}"

    assert wrong == {}


def test_every_rule_is_evaluated_and_every_recorded_series_has_a_value(watched: Watched) -> None:
    """Prometheus' own word for it, and a number for the server that it looks at."""
    answer = httpx.get(
        f"{watched.prometheus.url}/api/v1/rules", timeout=60, verify=server.TLS
    ).json()
    rules = [rule for group in answer["data"]["groups"] for rule in group["rules"]]
    recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}

    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    values = {
        name: [s.value for s in watched.prometheus.query(f'{name}{{job="{JOB}"}}', watched.at)]
        for name in recorded
    }
    assert {name for name, found in values.items() if not found or math.isnan(sum(found))} == set()


def test_a_server_that_is_well_raises_no_alert(watched: Watched) -> None:
    """While the made-up deployment does. How quick this machine is, is not what this is about."""
    firing = 'alertstate="firing",alertname!~"CreditLatency.+"'
    failures = f'sum(credit_http_requests_total{{job="{JOB}",status_class="5xx"}})'

    assert watched.prometheus.query(f'ALERTS{{job="{JOB}",{firing}}}', watched.at) == []
    assert watched.prometheus.query(f'ALERTS{{job="made-up",{firing}}}', watched.at)
    assert [sample.value for sample in watched.prometheus.query(failures, watched.at)] == [0.0]


@pytest.mark.parametrize("window", ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"])
def test_ratios_of_a_known_history_are_what_they_are(watched: Watched, window: str) -> None:
    """Two of a hundred requests failed, and ten were slow."""
    made_up = f'ratio_rate{window}{{job="made-up"}}'

    (errors,) = watched.prometheus.query(f"credit:http_errors:{made_up}", watched.at)
    (slow,) = watched.prometheus.query(f"credit:http_slow:{made_up}", watched.at)

    assert errors.value == pytest.approx(0.02)
    assert slow.value == pytest.approx(0.1)


def test_the_stability_index_of_a_known_history_is_what_it_is(watched: Watched) -> None:
    """A fifth and four fifths against halves: 0.4159, of a field and of the score."""
    assert pytest.approx(0.4159, abs=5e-5) == SHIFTED
    for name in ("feature", "score"):
        (found,) = watched.prometheus.query(f'credit:{name}_psi:1d{{job="made-up"}}', watched.at)
        assert found.value == pytest.approx(SHIFTED)


SHOCK = "income-shock"


@pytest.fixture(scope="module")
def shifted(watched: Watched) -> float:
    """Incomes fall; a time at which the rules and the monitoring job have seen it."""
    group = simulation.population(PACKAGE)
    shock = simulation.scenario(ROOT / "portfolios" / PORTFOLIO, group.schema, SHOCK)
    rows = simulation.blocks(group, shock, seed=5, rows=3_000)
    drawn = [one.application for one in simulation.applicants(group.schema, rows, 0.0, seed=5)]
    with calling(watched.url) as caller:
        for start in range(0, len(drawn), 500):
            caller.post("/predict/batch", {"applications": drawn[start : start + 500]})
    alert = f'ALERTS{{alertname="CreditDriftMajor",job="{JOB}",alertstate="firing"}}'
    seen = f'credit_monitor_psi{{job="{MONITOR}",feature="person_income"}} > 0.25'
    return until(watched.prometheus, f"{alert} and on () {seen}")


@pytest.mark.parametrize(
    "psi", [f'credit:feature_psi:1d{{job="{JOB}"}}', f'credit_monitor_psi{{job="{MONITOR}"}}']
)
def test_applicants_whose_incomes_fall_are_seen_as_such(
    watched: Watched, shifted: float, psi: str
) -> None:
    """In the field and in what follows from it, in no other; before, in none."""
    schema = simulation.population(PACKAGE).schema
    shock = simulation.scenario(ROOT / "portfolios" / PORTFOLIO, schema, SHOCK)

    def found(at: float) -> dict[str, float]:
        # Of the package that decides: the few that its challenger decides may differ by chance.
        return {
            sample.labels["feature"]: sample.value
            for sample in watched.prometheus.query(psi, at)
            if sample.labels["feature"] != "score"
            and sample.labels["model_version"] == watched.version
        }

    before, after = found(watched.at), found(shifted)
    assert set(before) == set(after) == set(schema.names)
    assert max(before.values()) < 0.1
    assert {name for name, value in after.items() if value > 0.1} == set(shock.moves(schema))
    assert after["person_income"] > 0.25


def test_the_alert_of_drift_fires_for_what_drifted(watched: Watched, shifted: float) -> None:
    """Its delay of half an hour is a second here, as elsewhere in this file."""
    firing = f'ALERTS{{alertname="CreditDriftMajor",job="{JOB}",alertstate="firing"}}'

    assert watched.prometheus.query(firing, watched.at) == []
    alerts = [sample.labels for sample in watched.prometheus.query(firing, shifted)]
    assert "person_income" in {alert.get("feature") for alert in alerts}
    assert {alert["model_version"] for alert in alerts} == {watched.version}


def test_the_monitoring_job_says_to_watch_the_model(watched: Watched, shifted: float) -> None:
    """Before, nothing spoke for retraining it."""
    verdict = f'credit_monitor_retraining{{job="{MONITOR}"}}'

    (before,) = watched.prometheus.query(verdict, watched.at)
    (after,) = watched.prometheus.query(verdict, shifted)
    assert before.value == 0
    assert after.value >= 1
