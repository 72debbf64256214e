"""*Model health*: whether applicants are those the model was made for, and PDs come true."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana import panels
from grafana.panels import PSI, WARNING, bars, figure, lines, listing, query, squares
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


def _outcomes() -> list[panels.Visual]:
    of = "credit_monitor_performance{@monitor"
    return [
        figure(
            "Retraining",
            "What the evidence on record says, held against the portfolio's monitoring.yaml. It "
            "starts nothing: a person decides.",
            "none",
            query("credit_monitor_retraining{@monitor}", "verdict"),
            states={
                0: ("not needed", panels.GOOD),
                1: ("watch", panels.WARNING),
                2: ("recommended", panels.BAD),
            },
        ),
        figure(
            "Outcomes known",
            "Decisions of the last 400 days whose outcome is on record.",
            "short",
            query("credit_monitor_outcomes{@monitor}", "outcomes"),
            decimals=0,
        ),
        figure(
            "Coverage",
            "Share of the applications accepted in the last 400 days that have an outcome.",
            "percentunit",
            query("credit_monitor_outcome_coverage_ratio{@monitor}", "coverage"),
            steps={0.0: WARNING, 0.5: panels.GOOD},
            decimals=0,
        ),
        figure(
            "Maturity",
            "Share of them that had the whole outcome period. Before, defaults are known and those "
            "who will pay are not.",
            "percentunit",
            query("credit_monitor_outcome_maturity_ratio{@monitor}", "maturity"),
            steps={0.0: WARNING, 0.8: panels.GOOD},
            decimals=0,
        ),
        bars(
            "Least approval-rate ratio",
            "Approval rate of the group least approved over that of the reference group, by "
            "attribute. Below 0.8 regulators ask why.",
            "none",
            query("credit_monitor_approval_ratio_least{@monitor}", "{{attribute}}"),
            steps={0.0: panels.BAD, 0.8: panels.GOOD},
        ),
        lines(
            "AUC",
            "As outcomes show; as was to be expected of the same applications if PDs are true; and "
            "as is to be expected of all applicants.",
            "none",
            query(f'{of},figure="auc",source="outcomes",bound="value"}}', "outcomes"),
            query(f'{of},figure="auc",source="outcomes",bound="low"}}', "low"),
            query(f'{of},figure="auc",source="outcomes",bound="high"}}', "high"),
            query(f'{of},figure="auc",source="expected",bound="value"}}', "expected"),
            query(f'{of},figure="auc",source="estimate",bound="value"}}', "all applicants"),
            minimum=0.5,
            maximum=1.0,
            dashed=("low", "high"),
        ),
        lines(
            "Defaults for each expected",
            "1 if PDs are true, with the bounds of its interval.",
            "none",
            query(f'{of},figure="calibration",source="outcomes",bound="value"}}', "outcomes"),
            query(f'{of},figure="calibration",source="outcomes",bound="low"}}', "low"),
            query(f'{of},figure="calibration",source="outcomes",bound="high"}}', "high"),
            dashed=("low", "high"),
        ),
        listing(
            "Figures of outcomes",
            "With the bounds of their intervals at 95 %.",
            query(f'{of},source="outcomes",bound="value"}}', ""),
            query(f'{of},source="outcomes",bound="low"}}', ""),
            query(f'{of},source="outcomes",bound="high"}}', ""),
            columns={
                "figure": "figure",
                "Value #A": "value",
                "Value #B": "low",
                "Value #C": "high",
            },
            by="figure",
        ),
        panels.columns(
            "Default rate by decile of PD",
            "Of each tenth of the outcomes, from low PDs to high: the default rate beside the mean "
            "PD, which it should be.",
            "percentunit",
            observed=query("max by (decile) (credit_monitor_decile_default_ratio{@monitor})", ""),
            reference=query("max by (decile) (credit_monitor_decile_pd_ratio{@monitor})", ""),
            by="decile",
        ),
        listing(
            "PSI of a week beside chance",
            "Of each field and of the score over the last seven days, and what chance alone makes "
            "of it once in a hundred checks.",
            query("credit_monitor_psi{@monitor}", ""),
            query("credit_monitor_psi_critical{@monitor}", ""),
            columns={"feature": "field", "Value #A": "PSI", "Value #B": "by chance"},
            by="feature",
            width=12,
        ),
    ]


def _challenger() -> list[panels.Visual]:
    asked = "credit_shadow_decisions_total{@portfolio}"
    return [
        listing(
            "Challenger",
            "The package that challenges the one that decides (1), and those that did before (0).",
            query("max by (model_version) (credit_challenger_info{@portfolio})", ""),
            columns={"model_version": "model", "Value": "challenges"},
        ),
        figure(
            "Canary",
            "Share of applicants that the challenger is to decide about; with 0 it is only asked.",
            "percentunit",
            query("max(credit_canary_share_ratio{@portfolio})", "share"),
            height=8,
        ),
        figure(
            "Asked",
            "Whether the challenger is asked about what is decided. It is given up when its "
            "process ends too often, and decides about nobody when it fails too often (no canary); "
            "another challenge begins anew.",
            "none",
            query(
                "max(credit_shadow_given_up{@portfolio})"
                " + 2 * max(credit_canary_suspended{@portfolio})",
                "state",
            ),
            states={
                0: ("asked", panels.GOOD),
                1: ("given up", panels.BAD),
                2: ("no canary", panels.BAD),
                3: ("given up", panels.BAD),
            },
            height=8,
        ),
        lines(
            "Shadow is behind by",
            "How long the first decision waits that the challenger was not asked about.",
            "s",
            query("max(credit_shadow_lag_seconds{@portfolio})", "lag"),
        ),
        lines(
            "What the challenger would decide",
            "Share of decisions on which it agrees, or would be milder or stricter, or failed.",
            "percentunit",
            query(share(rate(asked, "outcome"), rate(asked)), "{{outcome}}"),
            colours={"same": panels.GOOD, "failed": panels.BAD},
            width=12,
        ),
        *_contest(),
        lines(
            "Decided by the challenger",
            "Applications a second that the challenger was to decide about: those it did, and "
            "those for which it failed and the champion decided.",
            "cps",
            query(rate("credit_canary_decisions_total{@portfolio}", "outcome"), "{{outcome}}"),
            colours={"decided": panels.GOOD, "failed": panels.BAD},
            width=12,
        ),
        lines(
            "Records behind and skipped",
            "Records that the challenger is behind, and those left out in the time shown because "
            "it was too far behind.",
            "short",
            query("max(credit_shadow_behind_records{@portfolio})", "behind"),
            query(increase("credit_shadow_skipped_records_total{@portfolio}"), "skipped"),
            width=12,
        ),
        lines(
            "Its process ends",
            "Why the process that asks the challenger ended, in the time shown. Decisions do not "
            "wait for it.",
            "none",
            query(
                increase("credit_shadow_process_failures_total{@portfolio}", "cause"), "{{cause}}"
            ),
            width=12,
        ),
    ]


def _contest() -> list[panels.Visual]:
    """What the monitoring job says of both, on all that they were asked about."""

    def of(figure: str, bound: str) -> str:
        selected = f'figure="{figure}",bound="{bound}"'
        return f"max(credit_monitor_challenger{{@watched,{selected}}})"

    def one(title: str, about: str, unit: str, figure_name: str, decimals: int) -> panels.Visual:
        found = query(of(figure_name, "value"), "now")
        return figure(title, about, unit, found, decimals=decimals)

    return [
        one(
            "Compared",
            "Applications that both packages answered, as the monitoring job last found.",
            "short",
            "rows",
            0,
        ),
        one("Same decision", "Share that both decide the same.", "percentunit", "agreement", 1),
        one(
            "Newly approved",
            "Share that the challenger alone would approve.",
            "percentunit",
            "newly_approved",
            2,
        ),
        one(
            "No longer approved",
            "Share that the champion alone approves.",
            "percentunit",
            "no_longer_approved",
            2,
        ),
        one(
            "Same first reason",
            "Share with the same first reason, where both give reasons.",
            "percentunit",
            "same_first_reason",
            1,
        ),
        one(
            "Could not answer",
            "Share of applications that the challenger failed to answer.",
            "percentunit",
            "failure_ratio",
            2,
        ),
        one(
            "PSI against the champion",
            "Population stability index of the challenger's PDs in tenths of the champion's.",
            "none",
            "psi",
            3,
        ),
        one(
            "Processor time",
            "Of an application, how many times the champion's, both timed on the same rows.",
            "none",
            "processor_time_ratio",
            2,
        ),
        one(
            "Approval ratios",
            "How many times the champion's the challenger's approval-rate ratio is, of the group "
            "and attribute where it is least.",
            "none",
            "approval_ratio_change",
            2,
        ),
        listing(
            "Challenger's figures less the champion's",
            "Held against the same outcomes, with the bounds of the interval at 95 %; one that "
            "holds 0 may be chance. Of the Brier score less is better.",
            query('credit_monitor_challenger{@watched,figure=~".+_difference",bound="value"}', ""),
            query('credit_monitor_challenger{@watched,figure=~".+_difference",bound="low"}', ""),
            query('credit_monitor_challenger{@watched,figure=~".+_difference",bound="high"}', ""),
            columns={
                "figure": "figure",
                "Value #A": "difference",
                "Value #B": "low",
                "Value #C": "high",
            },
            by="figure",
            width=12,
        ),
    ]


def _job() -> list[panels.Visual]:
    return [
        figure(
            "Results are so old",
            "Time since the monitoring job was last done with the portfolio.",
            "s",
            query("time() - credit_monitor_done_timestamp_seconds{@watched}", "age"),
            steps={0.0: panels.GOOD, 93_600.0: panels.BAD},
            height=8,
        ),
        figure(
            "A run takes",
            "How long the last run took that was done.",
            "s",
            query("credit_monitor_run_seconds{@watched}", "run"),
            height=8,
        ),
        figure(
            "Applicants of a week",
            "Those that were compared with the reference.",
            "short",
            query("credit_monitor_window_rows{@monitor}", "applicants"),
            decimals=0,
            height=8,
        ),
        lines(
            "Runs",
            "How the monitoring job's runs end.",
            "none",
            query(increase("credit_monitor_runs_total{@watched}", "outcome"), "{{outcome}}"),
            colours={"done": panels.GOOD, "failed": panels.BAD},
            width=6,
        ),
        lines(
            "Records gone through",
            "By the monitoring job, for decisions to count, each once.",
            "cps",
            query(rate("credit_monitor_records_counted_total{@watched}"), "records"),
            width=6,
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
        "Drift of applicants and scores against the package's reference, the quality of their "
        "data, outcomes against PDs, and whether to think of retraining.",
        {
            "Drift": _drift(),
            "Against the reference": _reference(),
            "Quality of data": _quality(),
            "Outcomes and retraining": _outcomes(),
            "Champion and challenger": _challenger(),
            "Monitoring job": _job(),
            "What decides": _model(),
        },
        variables=[
            panels.instance(),
            panels.portfolio(),
            panels.model_version(),
            panels.feature(),
        ],
    )
