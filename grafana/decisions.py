"""*Decisions*: what is decided about whom, why, and what people make of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import panels
from grafana.panels import BANDS, OUTCOMES, bars, figure, lines, query
from grafana.promql import INTERVAL, RANGE, increase, rate, share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana_foundation_sdk.models.dashboard import Dashboard

_DECIDED = "credit_decisions_total{@model}"
_NEAR = "credit_near_cut_off_total{@model}"


def _shares(counter: str, label: str, over: str) -> str:
    """Each value's share of the decisions of a time."""
    return share(increase(counter, label, over=over), increase(_DECIDED, over=over))


def _in_order(label: str, values: Iterable[str], over: str) -> list[panels.Query]:
    """The share of each value, in the order given rather than by name."""
    every = increase(_DECIDED, over=over)
    return [
        query(
            share(
                increase(f'credit_decisions_total{{@model,{label}="{value}"}}', over=over), every
            ),
            value,
        )
        for value in values
    ]


def _outcomes() -> list[panels.Visual]:
    return [
        figure(
            "Decisions",
            "Decisions given in the time shown.",
            "short",
            query(increase(_DECIDED), "decisions"),
            decimals=0,
        ),
        figure(
            "Shares",
            "Shares of the decisions given in the time shown.",
            "percentunit",
            *_in_order("decision", OUTCOMES, RANGE),
            colours=OUTCOMES,
            decimals=1,
            width=12,
        ),
        figure(
            "Near the cut-off",
            "Share of decisions in the time shown whose PD lies within 0.02 of an edge at which "
            "the decision changes: a slightly other model would have decided otherwise.",
            "percentunit",
            query(share(increase(_NEAR), increase(_DECIDED)), "near"),
            decimals=1,
        ),
        figure(
            "Refused",
            "Applications refused in the time shown because they were not valid.",
            "short",
            query(increase("credit_applications_refused_total{@portfolio}"), "refused"),
            decimals=0,
        ),
        lines(
            "Decisions by outcome",
            "Decisions a second.",
            "cps",
            *(
                query(rate(f'credit_decisions_total{{@model,decision="{outcome}"}}'), outcome)
                for outcome in OUTCOMES
            ),
            stacked=True,
            colours=OUTCOMES,
        ),
        lines(
            "Shares of outcomes",
            "Share of each outcome over the time.",
            "percentunit",
            *_in_order("decision", OUTCOMES, INTERVAL),
            stacked=True,
            maximum=1.0,
            colours=OUTCOMES,
        ),
        lines(
            "Shares of risk bands",
            "Share of each band of PD. Bands come from the model, outcomes from the policy too: "
            "outcomes that move while bands stand still are the rules' doing.",
            "percentunit",
            *_in_order("band", BANDS, INTERVAL),
            stacked=True,
            maximum=1.0,
            colours=BANDS,
        ),
    ]


def _control() -> list[panels.Visual]:
    def chart(decision: str) -> panels.Visual:
        matchers = f'@drift,decision="{decision}"'
        centre = f"credit:decisions:ratio_7d{{{matchers}}}"
        spread = (
            f"3 * sqrt({centre} * (1 - {centre}) / on (job, portfolio, model_version) "
            "group_left () (credit:decisions:increase1h{@drift} > 0))"
        )
        return lines(
            f"{decision}: share of an hour",
            "The share of an hour's decisions, with the mean of seven days and limits of three "
            "standard errors around it, which depend on how many decisions the hour had. Outside "
            "of them it is hardly chance.",
            "percentunit",
            query(f"credit:decisions:ratio_1h{{{matchers}}}", decision),
            query(centre, "seven days"),
            query(f"clamp_max({centre} + {spread}, 1)", "upper limit"),
            query(f"clamp_min({centre} - {spread}, 0)", "lower limit"),
            colours={
                decision: OUTCOMES[decision],
                "seven days": panels.QUIET,
                "upper limit": panels.QUIET,
                "lower limit": panels.QUIET,
            },
            dashed=("upper limit", "lower limit"),
            minimum=None,
        )

    return [chart(decision) for decision in OUTCOMES]


def _scores() -> list[panels.Visual]:
    return [
        panels.score_distribution(),
        lines(
            "Near the cut-off, over time",
            "Share of decisions with a PD within 0.02 of an edge at which the decision changes.",
            "percentunit",
            query(
                share(rate(_NEAR), rate(_DECIDED)),
                "near",
            ),
            width=12,
        ),
    ]


def _reasons() -> list[panels.Visual]:
    reasons, rules = "credit_reasons_total{@model}", "credit_rule_hits_total{@model}"
    return [
        bars(
            "Reasons given",
            "Share of the decisions in the time shown that have a reason; a decision has up to "
            "four.",
            "percentunit",
            query(f"sort_desc({_shares(reasons, 'code', RANGE)})", "{{code}}"),
        ),
        bars(
            "Rules that decided",
            "Share of the decisions in the time shown that a rule of the policy decided or helped "
            "to decide.",
            "percentunit",
            query(f"sort_desc({_shares(rules, 'rule', RANGE)})", "{{rule}}"),
        ),
        lines(
            "Rules over time",
            "Share of decisions that a rule took part in.",
            "percentunit",
            query(_shares(rules, "rule", INTERVAL), "{{rule}}"),
        ),
    ]


def _people() -> list[panels.Visual]:
    closed = "credit_reviews_total{@portfolio}"
    return [
        lines(
            "Waiting for people",
            "Cases that wait for a review or for a second person.",
            "none",
            query("max by (portfolio) (credit_reviews_waiting{@portfolio})", "{{portfolio}}"),
            width=6,
        ),
        bars(
            "Reviews closed",
            "What people decided, in the time shown.",
            "none",
            query(increase(closed, "decision"), "{{decision}}"),
            colours=OUTCOMES,
            width=6,
        ),
        bars(
            "Overrides by direction",
            "Reviews that went against the server: low-side approves what it declined, high-side "
            "declines what it approved. `none` went along with it.",
            "none",
            query(increase(closed, "override"), "{{override}}"),
            width=6,
        ),
        bars(
            "Reasons of reviews",
            "The first reason given with each closed review.",
            "none",
            query(f"sort_desc({increase(closed, 'reason')})", "{{reason}}"),
            width=6,
        ),
    ]


def dashboard() -> Dashboard:
    """The dashboard."""
    return panels.dashboard(
        "credit-decisions",
        "Credit risk: decisions",
        "Outcomes and bands with control limits, scores, reasons, rules, reviews and overrides.",
        {
            "Outcomes": _outcomes(),
            "Control charts": _control(),
            "Scores": _scores(),
            "Reasons and rules": _reasons(),
            "People": _people(),
        },
        variables=[panels.instance(), panels.portfolio(), panels.model_version()],
    )
