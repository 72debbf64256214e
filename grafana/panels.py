"""What all dashboards are made of: panels, variables, colours.

Colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people tell apart
whatever their colour vision; the same thing has the same one everywhere.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast
from urllib.parse import quote

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    common,
    heatmap,
    logs,
    loki,
    prometheus,
    stat,
    statetimeline,
    statushistory,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import (
    dashboard as boards,
)
from grafana_foundation_sdk.models.common import (
    BarGaugeDisplayMode,
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    LogsSortOrder,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.promql import increase, share, written_out

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.models.dashboard import Dashboard, ValueMapping

Query: TypeAlias = prometheus.Dataquery
Visual: TypeAlias = (
    barchart.Panel
    | bargauge.Panel
    | heatmap.Panel
    | logs.Panel
    | stat.Panel
    | statetimeline.Panel
    | statushistory.Panel
    | table.Panel
    | timeseries.Panel
)
V = TypeVar(
    "V",
    barchart.Panel,
    bargauge.Panel,
    heatmap.Panel,
    logs.Panel,
    stat.Panel,
    statetimeline.Panel,
    statushistory.Panel,
    table.Panel,
    timeseries.Panel,
)
Coloured = TypeVar(
    "Coloured",
    bargauge.Panel,
    stat.Panel,
    statetimeline.Panel,
    statushistory.Panel,
    timeseries.Panel,
)
Steps: TypeAlias = "Mapping[float, str]"
"""Colours by the value from which on they hold, the lowest first."""

GOOD = "#56B4E9"
WARNING = "#E69F00"
BAD = "#D55E00"
QUIET = "#999999"
SERIES = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
"""For series that have names of their own here, in their order."""
OUTCOMES = {"APPROVE": "#56B4E9", "REVIEW": "#E69F00", "DECLINE": "#D55E00"}
BANDS = {"LOW": "#56B4E9", "MEDIUM": "#009E73", "HIGH": "#E69F00", "VERY_HIGH": "#D55E00"}
PSI = {0.0: GOOD, 0.1: WARNING, 0.25: BAD}

SOURCES = {"tempo": "credit-tempo", "loki": "credit-loki"}
"""Uids of data sources in grafana/provisioning, by their type."""
TAG = "credit-risk"
_SAFE = cast("FieldColorModeId", "palette-colorblind")
"""For series that are named by their labels. Of Grafana 13; the library has no name for it yet."""
_METRICS = DataSourceRef(type_val="prometheus", uid="${datasource}")
_LOGS = DataSourceRef(type_val="loki", uid="${logs}")


def query(expression: str, legend: str, *, exemplars: bool = False) -> Query:
    """A query.

    Args:
        expression: see `grafana.promql`.
        legend: how a series is called, with labels in double braces.
        exemplars: mark single requests, which lead to their traces.
    """
    made = prometheus.Dataquery().expr(written_out(expression)).legend_format(legend)
    return made.range().exemplar(exemplar=exemplars)


def lines(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    stacked: bool = False,
    minimum: float | None = 0.0,
    maximum: float | None = None,
    steps: Steps | None = None,
    colours: Mapping[str, str] | None = None,
    dashed: Sequence[str] = (),
    links: Sequence[boards.DashboardLink] = (),
) -> timeseries.Panel:
    """Values over time; ``steps`` are drawn across as lines, and series ``dashed`` are limits."""
    panel = (
        _panel(timeseries.Panel(), title, about, unit, queries, width, 8)
        .line_width(2 if not stacked else 1)
        .fill_opacity(60 if stacked else 0)
        .show_points(VisibilityMode.NEVER)
        .legend(_legend())
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
        .data_links(list(links))
        .color_scheme(boards.FieldColor().mode(_SAFE))
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if minimum is not None:
        panel.min(minimum)
    if maximum is not None:
        panel.max(maximum)
    if steps is not None:
        panel.thresholds(_thresholds({0.0: "transparent"} | dict(steps)))
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        )
    _coloured(panel, _named(queries) if colours is None else colours)
    for name in dashed:
        style = {"fill": "dash", "dash": [8, 8]}
        panel.override_by_name(name, [DynamicConfigValue("custom.lineStyle", style)])
    return panel


def figure(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    width: int = 4,
    height: int = 4,
    steps: Steps | None = None,
    states: Mapping[int, tuple[str, str]] | None = None,
    colours: Mapping[str, str] | None = None,
    decimals: int | None = None,
) -> stat.Panel:
    """One number, or one for each series, of now: what is no more shows nothing.

    ``steps`` colour it, below the first one as `BAD`; ``states`` say it in words.
    """
    panel = (
        _panel(stat.Panel(), title, about, unit, _of_now(queries), width, height)
        .graph_mode(BigValueGraphMode.NONE)
        .color_mode(BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps or {0.0: GOOD}))
    )
    if decimals is not None:
        panel.decimals(decimals)
    if states is not None:
        panel.mappings(_states(states))
    _coloured(panel, colours)
    return panel


def bars(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    steps: Steps | None = None,
    colours: Mapping[str, str] | None = None,
) -> bargauge.Panel:
    """One bar for each series, from the left, at the end of the time shown."""
    panel = (
        _panel(bargauge.Panel(), title, about, unit, _of_now(queries), width, 8)
        .orientation(VizOrientation.HORIZONTAL)
        .display_mode(BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_thresholds(steps or {0.0: GOOD}))
        .min(0)
    )
    if unit == "none":
        panel.decimals(0 if steps is None else 2)
    _coloured(panel, colours)
    return panel


def columns(
    title: str, about: str, unit: str, *, observed: Query, reference: Query, by: str
) -> barchart.Panel:
    """Two columns for each value of a label: what is, beside what was expected."""
    names = {"Value #A": "observed", "Value #B": "reference"}
    panel = (
        _panel(barchart.Panel(), title, about, unit, _as_tables(observed, reference), 12, 9)
        .x_field(by)
        .show_value(VisibilityMode.NEVER)
        .legend(_legend())
        .min(0)
    )
    for transformation in _joined(by, {by: by, **names}):
        panel.with_transformation(transformation)
    _coloured(panel, {"observed": GOOD, "reference": QUIET})
    return panel


def heat(title: str, about: str, unit: str, buckets: Query, *, width: int = 8) -> heatmap.Panel:
    """Counts by bucket over time."""
    return (
        _panel(
            heatmap.Panel(),
            title,
            about,
            unit,
            [buckets.format(PromQueryFormat.HEATMAP)],
            width,
            9,
        )
        .calculate(calculate=False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(
            heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Viridis").steps(64)
        )
    )


def squares(
    title: str, about: str, unit: str, *queries: Query, steps: Steps, width: int = 8
) -> statushistory.Panel:
    """A row of squares for each series, coloured by its value at that time."""
    return (
        _panel(statushistory.Panel(), title, about, unit, queries, width, 8)
        .show_value(VisibilityMode.NEVER)
        .max_data_points(48)
        .color_scheme(boards.FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(steps))
    )


def timeline(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    states: Mapping[int, tuple[str, str]],
    width: int = 8,
) -> statetimeline.Panel:
    """A bar for each series that changes with its state."""
    return (
        _panel(statetimeline.Panel(), title, about, unit, queries, width, 8)
        .merge_values(merge_values=True)
        .mappings(_states(states))
    )


def listing(
    title: str,
    about: str,
    *queries: Query,
    columns: Mapping[str, str],
    by: str | None = None,
    width: int = 8,
) -> table.Panel:
    """A table of labels and values; ``columns`` are those shown, in order, with their headings."""
    panel = _panel(table.Panel(), title, about, "none", _as_tables(*queries), width, 8)
    for transformation in _joined(by, columns):
        panel.with_transformation(transformation)
    return panel


def log(title: str, about: str, expression: str, *, width: int) -> logs.Panel:
    """Lines of logs, by LogQL."""
    return (
        _dressed(logs.Panel(), title, about, width, 8)
        .datasource(_LOGS)
        .with_target(loki.Dataquery().expr(expression).ref_id("A"))
        .show_time(show_time=True)
        .wrap_log_message(wrap_log_message=True)
        .enable_log_details(enable_log_details=True)
        .sort_order(LogsSortOrder.DESCENDING)
        .unit("none")
    )


def score_distribution() -> barchart.Panel:
    """Scores in bins of the reference, beside the reference."""
    counted = "credit_score_bin_total{@model}"
    return columns(
        "Scores against the reference",
        "Share of PDs in each bin, in the time shown, beside the share that the reference had. "
        "Bins are tenths of the reference, from low to high.",
        "percentunit",
        observed=query(share(increase(counted, "bin"), increase(counted)), ""),
        reference=query("max by (bin) (credit_score_bin_baseline_ratio{@model})", ""),
        by="bin",
    )


def traces_of_route() -> boards.DashboardLink:
    """From a series with the label ``route`` to the slow traces of that route."""
    query = (
        '{resource.service.name="credit-risk-server" && kind=server'
        ' && span.http.route="${__field.labels.route}" && duration>50ms}'
    )
    asked = {"queryType": "traceql", "query": query}
    return _explored("Slow traces of ${__field.labels.route}", "tempo", asked)


def lines_of_problem() -> boards.DashboardLink:
    """From a series with the label ``problem`` to the log lines of requests that ended so."""
    query = '{service_name="credit-risk-server"} | json | problem=~".*${__field.labels.problem}"'
    return _explored("Log lines of ${__field.labels.problem}", "loki", {"expr": query})


def instance() -> boards.QueryVariable:
    """Variable: the servers looked at."""
    return (
        _variable("instance", "Server", 'label_values(credit_build_info{job="$job"}, instance)')
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".+")
        .current(VariableOption(text="All", value="$__all"))
    )


def portfolio() -> boards.QueryVariable:
    """Variable: the portfolio looked at."""
    return _variable(
        "portfolio", "Portfolio", 'label_values(credit_model_info{job="$job"}, portfolio)'
    )


def model_version() -> boards.QueryVariable:
    """Variable: the model version looked at; what decides now comes first, then what did before."""
    of = 'credit_model_info{job="$job",portfolio="$portfolio"}'
    now = f"max by (model_version) ({of}) + 1"
    before = f"0 * max by (model_version) (last_over_time({of}[$__range]))"
    return (
        _variable("model_version", "Model", f"query_result(sort_desc({now} or {before}))")
        .regex('/model_version="([^"]+)"/')
        .sort(VariableSort.DISABLED)
    )


def feature() -> boards.QueryVariable:
    """Variable: the field looked at."""
    of = (
        'credit_feature_bin_total{job="$job",portfolio="$portfolio",model_version="$model_version"}'
    )
    return _variable("feature", "Field", f"label_values({of}, feature)")


def dashboard(
    uid: str,
    title: str,
    about: str,
    rows: Mapping[str, Sequence[Visual]],
    *,
    variables: Sequence[boards.QueryVariable],
) -> Dashboard:
    """A dashboard of rows by their titles; every second panel's id is by its place."""
    board = (
        boards.Dashboard(title)
        .uid(uid)
        .description(f"{about} Made by `make dashboards`; what is changed here is not kept.")
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            boards.DashboardLink("Credit risk")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
        .with_variable(boards.DatasourceVariable("datasource").label("Metrics").type("prometheus"))
        .with_variable(
            boards.DatasourceVariable("logs")
            .label("Logs")
            .type("loki")
            .hide(VariableHide.HIDE_VARIABLE)
        )
        .with_variable(_variable("job", "Deployment", "label_values(credit_build_info, job)"))
    )
    for variable in variables:
        board.with_variable(variable)
    number = 0
    for name, panels in rows.items():
        number += 1
        board.with_row(boards.Row(name).id(number))
        for panel in panels:
            number += 1
            board.with_panel(panel.id(number))
    return board.build()


def _explored(title: str, kind: str, asked: Mapping[str, str]) -> boards.DashboardLink:
    """A link to Explore, with a query to a data source of grafana/provisioning."""
    uid = SOURCES[kind]
    pane = {
        "datasource": uid,
        "queries": [{"refId": "A", "datasource": {"type": kind, "uid": uid}, **asked}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    panes = quote(json.dumps({"pane": pane}, separators=(",", ":")), safe="${}.:")
    return (
        boards.DashboardLink(title)
        .url(f"/explore?schemaVersion=1&orgId=1&panes={panes}")
        .target_blank(target_blank=True)
    )


def _variable(name: str, label: str, text: str) -> boards.QueryVariable:
    return (
        boards.QueryVariable(name)
        .label(label)
        .datasource(_METRICS)
        .query({"query": text, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def _dressed(panel: V, title: str, about: str, width: int, height: int) -> V:
    return panel.title(title).description(about).span(width).height(height)


def _panel(  # noqa: PLR0917 - what every panel has
    panel: V, title: str, about: str, unit: str, queries: Sequence[Query], width: int, height: int
) -> V:
    _dressed(panel, title, about, width, height).datasource(_METRICS).unit(unit)
    for letter, made in zip("ABCDEFGH", queries, strict=False):
        panel.with_target(made.ref_id(letter).datasource(_METRICS))
    return panel


def _of_now(queries: Sequence[Query]) -> list[Query]:
    """The values at the end of the time shown."""
    return [made.instant() for made in queries]


def _as_tables(*queries: Query) -> list[Query]:
    return [made.format(PromQueryFormat.TABLE) for made in _of_now(queries)]


def _joined(by: str | None, shown: Mapping[str, str]) -> list[DataTransformerConfig]:
    """One table of several, and of its columns only those shown."""
    organised = {
        "includeByName": dict.fromkeys(shown, True),
        "indexByName": {name: place for place, name in enumerate(shown)},
        "renameByName": dict(shown),
    }
    made = [DataTransformerConfig(id_val="organize", options=organised)]
    if by is not None:
        join = {"byField": by, "mode": "outer"}
        made.insert(0, DataTransformerConfig(id_val="joinByField", options=join))
        order = {"fields": {}, "sort": [{"field": by, "desc": False}]}
        made.insert(1, DataTransformerConfig(id_val="sortBy", options=order))
    return made


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.LIST)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(show_legend=True)
        .calcs([])
    )


def _thresholds(steps: Steps) -> boards.ThresholdsConfig:
    """Steps for Grafana, whose first one has no lower end."""
    first = next(iter(steps))
    made = [Threshold(value=None, color=steps[first] if first <= 0.0 else BAD)]
    made += [Threshold(value=value, color=colour) for value, colour in steps.items() if value > 0.0]
    return boards.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(made)


def _states(states: Mapping[int, tuple[str, str]]) -> list[ValueMapping]:
    options = {
        str(value): ValueMappingResult(text=text, color=colour)
        for value, (text, colour) in states.items()
    }
    return [ValueMap(options=options)]


def _named(queries: Sequence[Query]) -> dict[str, str]:
    """A colour for each series whose name has no labels in it."""
    names = [str(made.build().legend_format) for made in queries]
    return dict(zip((name for name in names if "{{" not in name), SERIES, strict=False))


def _coloured(panel: Coloured | barchart.Panel, colours: Mapping[str, str] | None) -> None:
    """Fixed colours for series by their names."""
    for name, colour in (colours or {}).items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_name(name, [DynamicConfigValue("color", fixed)])
