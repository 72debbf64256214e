"""*Service*: whether it answers, well and in time, and what it spends its time on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import panels
from grafana.panels import BAD, GOOD, WARNING, figure, heat, lines, listing, log, query
from grafana.promql import INTERVAL, increase, quantile, rate, share

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

AVAILABILITY = 0.999
FAST = 0.99
"""The objectives; prometheus/rules says what is counted."""
BURNS = {1.0: WARNING, 6.0: WARNING, 14.4: BAD}
"""How many times faster than allowed a budget burns where the alerts have their limits."""

_BUDGET = {0.0: WARNING, 0.25: GOOD}
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_READY = {0: ("not ready", BAD), 1: ("ready", GOOD)}
_WINDOWS = {"1h": "1 h", "6h": "6 h", "3d": "3 days"}


def quantiles(histogram: str, selector: str) -> list[panels.Query]:
    """p50, p95 and p99 of a histogram."""
    return [query(quantile(q, histogram, selector), name) for name, q in _QUANTILES.items()]


def _objectives() -> list[panels.Visual]:
    errors, slow = "credit:http_errors:ratio_rate", "credit:http_slow:ratio_rate"
    return [
        figure(
            "Answered well",
            "Share of scoring requests of 30 days that were not answered with a fault of ours "
            f"(5xx). The objective is {AVAILABILITY:.1%}.",
            "percentunit",
            query(f"1 - {errors}30d{{@job}}", "answered well"),
            steps={AVAILABILITY: GOOD},
            decimals=3,
        ),
        figure(
            "Error budget left",
            "What is left of the faults that the objective allows in 30 days; below 0 it is "
            "missed.",
            "percentunit",
            query(f"1 - {errors}30d{{@job}} / {1 - AVAILABILITY:.3f}", "left"),
            steps=_BUDGET,
            decimals=1,
        ),
        figure(
            "Answered in time",
            "Share of scoring requests of 30 days answered within 50 ms, or within 250 ms for "
            f"/predict/batch. The objective is {FAST:.0%}.",
            "percentunit",
            query(f"1 - {slow}30d{{@job}}", "answered in time"),
            steps={FAST: GOOD},
            decimals=2,
        ),
        figure(
            "Latency budget left",
            "What is left of the slow answers that the objective allows in 30 days.",
            "percentunit",
            query(f"1 - {slow}30d{{@job}} / {1 - FAST:.2f}", "left"),
            steps=_BUDGET,
            decimals=1,
        ),
        figure(
            "Ready",
            "Whether every server passes its own checks: golden records get their golden answers "
            "(model), and the database takes records.",
            "none",
            query("min by (check) (credit_ready{@server})", "{{check}}"),
            states=_READY,
        ),
        figure(
            "Alerts firing",
            "Alerts of this deployment, and of what its telemetry goes through, that fire now; "
            "docs/runbook.md has a section for each.",
            "none",
            query(
                'count(ALERTS{@job,alertname=~"Credit.+",alertstate="firing"}'
                ' or ALERTS{alertname=~"CreditTelemetry.+",alertstate="firing"}) or vector(0)',
                "firing",
            ),
            steps={0.0: GOOD, 1.0: BAD},
        ),
        *(
            lines(
                f"{title} budget: how fast it burns",
                "Times the rate that the objective allows, over three windows. At 1 the budget "
                "lasts 30 days. Somebody is woken above 14.4 over an hour or 6 over six hours.",
                "none",
                *(
                    query(f"{series}{window}{{@job}} / {allowed}", name)
                    for window, name in _WINDOWS.items()
                ),
                steps=BURNS,
                width=12,
            )
            for title, series, allowed in (
                ("Error", errors, f"{1 - AVAILABILITY:.3f}"),
                ("Latency", slow, f"{1 - FAST:.2f}"),
            )
        ),
    ]


def _traffic() -> list[panels.Visual]:
    return [
        lines(
            "Requests by route",
            "Requests answered a second, by route template; paths that no route has are `unknown`.",
            "reqps",
            query(
                rate("credit_http_requests_total{@server}", "route"),
                "{{route}}",
            ),
        ),
        lines(
            "Answers by status class",
            "2xx were answered, 4xx refused for a fault of the caller's, 5xx failed for one of "
            "ours. `none` is a request whose answer could not be sent.",
            "reqps",
            query(
                rate("credit_http_requests_total{@server}", "status_class"),
                "{{status_class}}",
            ),
            stacked=True,
            colours={"2xx": GOOD, "4xx": WARNING, "5xx": BAD},
        ),
        lines(
            "Problems by type",
            "Requests answered with a problem, by its type; /problems/TYPE on the server says what "
            "each one means.",
            "reqps",
            query(
                rate('credit_http_requests_total{@server,problem!="none"}', "problem") + " > 0",
                "{{problem}}",
            ),
            links=[panels.lines_of_problem()],
        ),
    ]


def _latency() -> list[panels.Visual]:
    latency = "credit_http_request_duration_seconds"
    served = "credit_http_response_duration_seconds"
    return [
        lines(
            "Latency of scoring",
            "From a request's being there whole to its answer, all scoring calls, measured in the "
            "server. The line is the objective for single applications.",
            "s",
            *quantiles(served, "@server,@scoring"),
            steps={0.05: BAD},
        ),
        lines(
            "p99 by route",
            "The time within which 99 of 100 requests of a route are answered, from their arrival: "
            "how long a caller takes to send a body is in it.",
            "s",
            query(quantile(0.99, latency, "@server", "route"), "{{route}}"),
            links=[panels.traces_of_route()],
        ),
        lines(
            "Latency from traces",
            "p99 of the sampled requests' server spans, by Tempo's metrics generator. Each dot is "
            "a request: it leads to its trace, and the trace to its log lines.",
            "s",
            query(
                quantile(
                    0.99,
                    "traces_spanmetrics_latency",
                    'service="credit-risk-server",span_kind="SPAN_KIND_SERVER"',
                    "span_name",
                ),
                "{{span_name}}",
                exemplars=True,
            ),
        ),
        heat(
            "Scoring requests by latency",
            "How many requests took how long. A second band is a second kind of request, or a "
            "worker that is slow.",
            "s",
            query(increase(f"{served}_bucket{{@server,@scoring}}", "le", over=INTERVAL), "{{le}}"),
            width=24,
        ),
    ]


def _stages() -> list[panels.Visual]:
    stage = "credit_stage_duration_seconds"
    return [
        lines(
            "p95 of each stage",
            "read, claim, validate, wait and record are of one request; encode, score, decide and "
            "explain of one batch of them.",
            "s",
            query(quantile(0.95, stage, "@server", "stage"), "{{stage}}"),
        ),
        lines(
            "Where the time goes",
            "Seconds spent in each stage in a second, all workers added up. Waiting and recording "
            "take time, but no processor.",
            "s",
            query(rate(f"{stage}_sum{{@server}}", "stage"), "{{stage}}"),
            stacked=True,
        ),
        lines(
            "Rows in a batch",
            "Applications scored together. The more wait, the more go together; an idle server "
            "scores one at a time.",
            "none",
            query(
                share(
                    rate("credit_batch_rows_sum{@server}"), rate("credit_batch_rows_count{@server}")
                ),
                "mean",
            ),
            query(quantile(0.95, "credit_batch_rows", "@server"), "p95"),
        ),
        lines(
            "Wait for scoring",
            "The longest wait in each batch until its scoring began.",
            "s",
            *quantiles("credit_batch_wait_seconds", "@server"),
            width=12,
        ),
        lines(
            "Waiting",
            "Requests in hand, and applications that wait to be scored, as the last batch left "
            "them. Beyond CREDIT_RISK_WAITING_ROWS_MAX a worker turns requests away.",
            "none",
            query("sum(credit_http_requests_in_flight{@server})", "requests in hand"),
            query("sum(credit_batch_queue_rows{@server})", "applications waiting"),
            width=12,
        ),
    ]


def _saturation() -> list[panels.Visual]:
    return [
        lines(
            "Workers",
            "Workers of each server that serve, and how many are to. One fewer has died, or cannot "
            "start; the log says why.",
            "none",
            query("credit_workers{@server}", "{{instance}}"),
            query("credit_workers_expected{@server}", "{{instance}}, expected"),
        ),
        lines(
            "Processor",
            "Share of one core that each worker uses. A worker is one process, and most of its "
            "work is on one thread.",
            "percentunit",
            query(
                f"rate(credit_process_cpu_seconds{{@server}}[{INTERVAL}])",
                "{{instance}} {{pid}}",
            ),
            steps={0.9: WARNING},
        ),
        lines(
            "Memory",
            "Resident memory of each worker.",
            "bytes",
            query("credit_process_resident_memory_bytes{@server}", "{{instance}} {{pid}}"),
        ),
        lines(
            "Event-loop lag",
            "How much later than asked the event loop gets round to something: time in which no "
            "request moves.",
            "s",
            *quantiles("credit_event_loop_lag_seconds", "@server"),
            steps={0.05: WARNING},
        ),
        lines(
            "Open files",
            "File descriptors of each worker: connections, mostly.",
            "none",
            query("credit_process_open_fds{@server}", "{{instance}} {{pid}}"),
        ),
        lines(
            "Age of workers",
            "Time since each worker started; a fall is a restart.",
            "s",
            query("time() - credit_process_start_time_seconds{@server}", "{{instance}} {{pid}}"),
        ),
    ]


def _telemetry() -> list[panels.Visual]:
    return [
        lines(
            "Spans and log lines",
            "What the server exported, and what it had to drop because the collector, or whatever "
            "reads its standard output, took too little.",
            "cps",
            query(
                rate("credit_spans_exported_total{@server}"),
                "spans exported",
            ),
            query(rate("credit_spans_dropped_total{@server}"), "spans dropped"),
            query(
                rate("credit_log_lines_dropped_total{@server}"),
                "lines dropped",
            ),
            colours={"spans exported": GOOD, "spans dropped": BAD, "lines dropped": WARNING},
        ),
        lines(
            "Collector",
            "Spans and log lines that the collector could not pass on, by exporter.",
            "cps",
            *(
                query(
                    rate(
                        f'{{__name__=~"otelcol_exporter_send_failed_{what}(_total)?"}}', "exporter"
                    ),
                    f"{name}, {{{{exporter}}}}",
                )
                for what, name in (("spans", "spans"), ("log_records", "lines"))
            ),
        ),
        lines(
            "Scrapes",
            "Time that Prometheus waits for a server's metrics.",
            "s",
            query("scrape_duration_seconds{@server}", "{{instance}}"),
        ),
        listing(
            "Programs",
            "What runs where.",
            query("max by (instance, version, python, bentoml) (credit_build_info{@server})", ""),
            columns={
                "instance": "server",
                "version": "version",
                "python": "Python",
                "bentoml": "BentoML",
            },
            width=8,
        ),
        log(
            "Warnings and errors",
            "Lines of the servers' logs, the newest first. A line of a sampled request leads to "
            "its trace.",
            '{service_name="credit-risk-server"} | json | level=~"WARNING|ERROR|CRITICAL"',
            width=16,
        ),
    ]


def dashboard() -> Dashboard:
    """The dashboard."""
    return panels.dashboard(
        "credit-service",
        "Credit risk: service",
        "Objectives and their budgets, traffic, latency, stages, batching and saturation of the "
        "decision servers.",
        {
            "Objectives": _objectives(),
            "Traffic": _traffic(),
            "Latency": _latency(),
            "Stages and batching": _stages(),
            "Saturation": _saturation(),
            "Telemetry": _telemetry(),
        },
        variables=[panels.instance()],
    )
