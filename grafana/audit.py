"""*Audit*: whether all that was decided is on record, and records are what was recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import panels
from grafana.panels import BAD, GOOD, WARNING, figure, lines, log, query, timeline
from grafana.promql import INTERVAL, increase, rate
from grafana.service import quantiles

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_INTACT = {0: ("broken", BAD), 1: ("intact", GOOD)}
_DECIDES = {0: ("no longer", panels.QUIET), 1: ("decides", GOOD)}


def _records() -> list[panels.Visual]:
    recorded = 'credit_records_written_total{@server,kind="decision"}'
    return [
        figure(
            "Decisions without a record",
            "Decisions counted beyond the records made durable. Anything but 0 is an incident.",
            "none",
            query("sum(credit:decisions_unrecorded:sum{@server})", "without"),
            steps={0.0: GOOD, 1.0: BAD},
        ),
        figure(
            "Chain of records",
            "Whether the records since the last checkpoint follow one another, as the server found "
            "when it looked last.",
            "none",
            query("min(credit_chain_intact{@server})", "chain"),
            states=_INTACT,
        ),
        figure(
            "Looked at",
            "Time since a server verified the newest records. It looks before each checkpoint, as "
            "long as something is recorded.",
            "s",
            query("time() - max(credit_chain_verified_timestamp_seconds{@server})", "ago"),
        ),
        figure(
            "Newest checkpoint",
            "Number of the signed checkpoint made last.",
            "none",
            query("max(credit_checkpoint_number{@server})", "number"),
        ),
        figure(
            "Records under it",
            "Place in the chain of the last record under a checkpoint: so many records are signed.",
            "short",
            query("max(credit_checkpoint_last_record{@server})", "records"),
        ),
        figure(
            "Waiting for the disk",
            "Records handed over and not yet durable; their callers wait for them.",
            "none",
            query("sum(credit_records_waiting{@server})", "records"),
        ),
        lines(
            "Decided and recorded",
            "Decisions given and decisions recorded, a second. The two lines lie on one another.",
            "cps",
            query(rate("credit_decisions_total{@server}"), "decided"),
            query(rate(recorded), "recorded"),
        ),
        lines(
            "Records by kind",
            "Records made durable a second.",
            "cps",
            query(
                rate("credit_records_written_total{@server}", "kind"),
                "{{kind}}",
            ),
            stacked=True,
        ),
        lines(
            "Decisions without a record, over time",
            "By server; 0 at every moment.",
            "none",
            query("credit:decisions_unrecorded:sum{@server}", "{{instance}}"),
            steps={1.0: BAD},
        ),
    ]


def _commits() -> list[panels.Visual]:
    return [
        lines(
            "Time to commit",
            "From handing a record over to its being durable: what every caller waits for.",
            "s",
            *quantiles("credit_record_commit_seconds", "@server"),
        ),
        lines(
            "Waiting for the disk, over time",
            "Records handed over and not yet durable, by server.",
            "none",
            query("sum by (instance) (credit_records_waiting{@server})", "{{instance}}"),
        ),
        lines(
            "Failures to record",
            "Times that records could not be made durable; their callers got 503 and no decision.",
            "cps",
            query(
                rate("credit_record_failures_total{@server}", "instance"),
                "{{instance}}",
            ),
        ),
    ]


def _checkpoints() -> list[panels.Visual]:
    return [
        lines(
            "Records signed",
            "Place in the chain of the last record under a checkpoint.",
            "short",
            query("max(credit_checkpoint_last_record{@server})", "records"),
        ),
        lines(
            "Age of the last look",
            "Time since a server verified the newest records, before it signed them.",
            "s",
            query("time() - max(credit_chain_verified_timestamp_seconds{@server})", "age"),
        ),
        lines(
            "Checkpoints that failed",
            "Times that no checkpoint could be made, by server; the log says why.",
            "none",
            query(
                increase("credit_checkpoint_failures_total{@server}", "instance", over=INTERVAL),
                "{{instance}}",
            ),
        ),
        log(
            "Checkpoints and activations",
            "The lines that servers log about them. Each line of a checkpoint is an anchor that "
            "`credit-risk audit verify --anchor` takes.",
            '{service_name="credit-risk-server"} | json '
            '| logger=~"credit_risk.audit.checkpoints|credit_risk.activation"',
            width=24,
        ),
    ]


def _people() -> list[panels.Visual]:
    return [
        lines(
            "Waiting for people",
            "Cases that wait for a review or for a second person.",
            "none",
            query("max by (portfolio) (credit_reviews_waiting{@server})", "{{portfolio}}"),
            width=12,
        ),
        lines(
            "Requests sent again",
            "Requests with an Idempotency-Key: new ones, those answered as before, those whose "
            "answer is still to come (conflict), and keys of other requests (mismatch).",
            "cps",
            query(
                rate("credit_idempotent_requests_total{@server}", "outcome"),
                "{{outcome}}",
            ),
            stacked=True,
            colours={"new": GOOD, "conflict": WARNING, "mismatch": BAD},
            width=12,
        ),
    ]


def _activations() -> list[panels.Visual]:
    return [
        timeline(
            "What decides",
            "The package that decides, on each server, over time.",
            "none",
            query(
                "max by (instance, portfolio, model_version) (credit_model_info{@server})",
                "{{instance}} {{portfolio}} {{model_version}}",
            ),
            states=_DECIDES,
            width=16,
        ),
        lines(
            "Activations that failed",
            "Packages that were activated and could not be loaded, so that the one before goes on.",
            "none",
            query(
                increase("credit_activation_failures_total{@server}", "portfolio", over=INTERVAL),
                "{{portfolio}}",
            ),
            width=8,
        ),
        lines(
            "Looks at the model registry",
            "What came of asking what its aliases stand for: followed is a switch that it said.",
            "none",
            query(
                increase(
                    "credit_registry_looks_total{@server}",
                    "portfolio, alias, outcome",
                    over=INTERVAL,
                ),
                "{{portfolio}} {{alias}} {{outcome}}",
            ),
            width=24,
        ),
    ]


def dashboard() -> Dashboard:
    """The dashboard."""
    return panels.dashboard(
        "credit-audit",
        "Credit risk: audit",
        "Records against decisions, commits, the chain and its checkpoints, reviews, repeated "
        "requests and activations.",
        {
            "Records": _records(),
            "Commits": _commits(),
            "Checkpoints": _checkpoints(),
            "People and repeated requests": _people(),
            "Activations": _activations(),
        },
        variables=[panels.instance()],
    )
