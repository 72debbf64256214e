"""*Model health*: whether applicants are those the model was made for, and their data is sound."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import panels
from grafana.panels import PSI, bars, figure, lines, listing, query, squares
from grafana.promql import increase, rate, share

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

_READING = (
    "Population stability index (PSI) against the package's reference, over a day: below 0.1 "
    "stable, above 0.25 a major shift. Needs more than 200 rows."
)


def _drift() -> list[panels.Visual]:
    return [
        figure(
            "PSI of the score",
            _READING,
            "none",
            query("credit:score_psi:1d{@drift}", "PSI"),
            steps=PSI,
            decimals=3,
            height=8,
        ),
        figure(
            "Highest PSI of a field",
            _READING,
            "none",
            query("topk(1, credit:feature_psi:1d{@drift})", "{{feature}}"),
            steps=PSI,
            decimals=3,
            height=8,
        ),
        figure(
            "Rows behind it",
            "Applications scored within a day, which PSI is computed from.",
            "short",
            query("credit:score_rows:increase1d{@drift}", "rows"),
            decimals=0,
            height=8,
        ),
        lines(
            "PSI of the score over time",
            _READING,
            "none",
            query("credit:score_psi:1d{@drift}", "PSI"),
            steps=PSI,
            width=12,
        ),
        bars(
            "PSI by field",
            _READING,
            "none",
            query("sort_desc(credit:feature_psi:1d{@drift})", "{{feature}}"),
            steps=PSI,
        ),
        squares(
            "PSI of each field over time",
            _READING,
            "none",
            query("credit:feature_psi:1d{@drift}", "{{feature}}"),
            steps=PSI,
        ),
        listing(
            "PSI and rows",
            _READING,
            query("credit:feature_psi:1d{@drift}", ""),
            query("credit:feature_rows:increase1d{@drift}", ""),
            columns={"feature": "field", "Value #A": "PSI", "Value #B": "rows"},
            by="feature",
        ),
    ]


def _reference() -> list[panels.Visual]:
    counted = 'credit_feature_bin_total{@model,feature="$feature"}'
    return [
        panels.score_distribution(),
        panels.columns(
            "$feature against the reference",
            "Share of applications in each bin of the field, in the time shown, beside the share "
            "that the reference had. Bins of numbers are tenths of the reference, from low to "
            "high.",
            "percentunit",
            observed=query(share(increase(counted, "bin"), increase(counted)), ""),
            reference=query(
                'max by (bin) (credit_feature_bin_baseline_ratio{@model,feature="$feature"})', ""
            ),
            by="bin",
        ),
    ]


def _quality() -> list[panels.Visual]:
    refused = rate("credit_applications_refused_total{@portfolio}")
    decided = rate("credit_decisions_total{@portfolio}")
    at_fault = increase("credit_invalid_fields_total{@portfolio}", "field")

    def of_fields(title: str, about: str, counter: str) -> panels.Visual:
        return lines(
            title,
            about,
            "percentunit",
            query(
                share(
                    rate(f"{counter}{{@model}}", "feature"),
                    rate("credit_decisions_total{@model}"),
                ),
                "{{feature}}",
            ),
        )

    return [
        of_fields(
            "Missing values",
            "Share of applications that leave a field out, where the schema allows it.",
            "credit_feature_missing_total",
        ),
        of_fields(
            "Out of range",
            "Share of applications whose number lies outside of the middle 99.9 % of the reference "
            "population's, though the schema takes it.",
            "credit_feature_out_of_range_total",
        ),
        of_fields(
            "Unseen categories",
            "Share of applications with a category that the schema takes and the reference "
            "population never had.",
            "credit_feature_unseen_total",
        ),
        lines(
            "Applications refused",
            "Share of applications that were not valid, of all that came.",
            "percentunit",
            query(share(refused, f"({refused} + {decided})"), "refused"),
            width=12,
        ),
        bars(
            "Fields at fault",
            "Places named in refused applications, in the time shown; `other` is what no schema "
            "names.",
            "none",
            query(f"sort_desc({at_fault})", "{{field}}"),
            width=12,
        ),
    ]


def _model() -> list[panels.Visual]:
    return [
        listing(
            "Packages",
            "What decides (1) and what did before (0), on each server.",
            query(
                "max by (instance, model_version, policy_version, estimator) "
                "(credit_model_info{@portfolio})",
                "",
            ),
            columns={
                "instance": "server",
                "model_version": "model",
                "policy_version": "policy",
                "estimator": "estimator",
                "Value": "decides",
            },
            width=24,
        ),
    ]


def dashboard() -> Dashboard:
    """The dashboard."""
    return panels.dashboard(
        "credit-model-health",
        "Credit risk: model health",
        "Drift of applicants and scores against the package's reference, and the quality of their "
        "data.",
        {
            "Drift": _drift(),
            "Against the reference": _reference(),
            "Quality of data": _quality(),
            "What decides": _model(),
        },
        variables=[
            panels.instance(),
            panels.portfolio(),
            panels.model_version(),
            panels.feature(),
        ],
    )
