"""The dashboards as Grafana loads them: each panel explains itself and asks for what there is."""

from __future__ import annotations

import json
import logging
import re
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import promql_parser
import pytest
import yaml

from grafana import panels, service
from grafana.__main__ import FOLDER, differing, main
from tests.promql import filled

ROOT = Path(__file__).parents[2]
DASHBOARDS = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")
}
PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}")
    for uid, board in DASHBOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
UNITS = {"none", "short", "percentunit", "s", "bytes", "reqps", "cps"}
every_dashboard = pytest.mark.parametrize("uid", DASHBOARDS)
every_panel = pytest.mark.parametrize("panel", PANELS)


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Every selector of an expression."""
    found: list[promql_parser.VectorSelector] = []

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        if isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        return True

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


def test_the_files_are_what_the_code_makes() -> None:
    """`make dashboards` was run."""
    assert differing(FOLDER) == []
    assert main(["--check"]) == 0


def test_a_stale_file_is_named_and_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing ones are written, others go, and what is there is the same every time."""
    (tmp_path / "of-old.json").write_text("{}", encoding="utf-8")

    assert main(["--check"], tmp_path) == 1
    assert "of-old.json" in capsys.readouterr().err
    assert main([], tmp_path) == 0
    assert main(["--check"], tmp_path) == 0
    assert {path.stem for path in tmp_path.iterdir()} == set(DASHBOARDS)


def test_there_are_four() -> None:
    """Each file is named by the uid that links and alerts use."""
    assert set(DASHBOARDS) == {
        "credit-service",
        "credit-decisions",
        "credit-model-health",
        "credit-audit",
    }
    assert all(board["uid"] == uid for uid, board in DASHBOARDS.items())


@every_dashboard
def test_a_dashboard_leads_to_the_others_and_keeps_what_is_looked_at(uid: str) -> None:
    """Time and variables go along; nobody edits what is made by code."""
    board = DASHBOARDS[uid]

    (link,) = board["links"]
    assert (link["type"], link["tags"]) == ("dashboards", board["tags"])
    assert link["includeVars"]
    assert link["keepTime"]
    assert board["description"]
    assert not board["editable"]


@every_dashboard
def test_variables_choose_data_source_deployment_and_server(uid: str) -> None:
    """And those of decisions portfolio and model version; each variable is used."""
    board = DASHBOARDS[uid]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}

    assert variables["datasource"]["query"] == "prometheus"
    assert {"job", "instance"} <= set(variables)
    assert variables["instance"]["multi"]
    assert variables["instance"]["allValue"] == ".+"
    if uid in {"credit-decisions", "credit-model-health"}:
        assert {"portfolio", "model_version"} <= set(variables)
    text = json.dumps(board["panels"])
    used = {name for name in variables if f"${name}" in text or f"${{{name}}}" in text}
    assert used == set(variables) - ({"logs"} if '"loki"' not in text else set())


@every_dashboard
def test_panels_have_ids_of_their_own_and_no_place_twice(uid: str) -> None:
    """They fit the grid of 24 columns."""
    board = DASHBOARDS[uid]["panels"]
    places = [
        {
            (x, y)
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        }
        for panel in board
    ]

    assert len({panel["id"] for panel in board}) == len(board)
    assert len({panel["title"] for panel in board}) == len(board)
    assert all(x < 24 for place in places for x, _ in place)
    assert not any(one & other for one, other in combinations(places, 2))


@every_panel
def test_a_panel_says_what_it_shows_and_in_what_unit(panel: dict[str, Any]) -> None:
    """A title, a description in sentences, a unit that Grafana knows, and queries."""
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@every_panel
def test_a_panel_asks_the_data_source_chosen(panel: dict[str, Any]) -> None:
    """None is named by its uid."""
    kind = "logs" if panel["type"] == "logs" else "datasource"

    assert panel["datasource"]["uid"] == f"${{{kind}}}"
    assert all(
        target.get("datasource", panel["datasource"])["uid"] == f"${{{kind}}}"
        for target in panel["targets"]
    )


@every_panel
def test_a_query_is_promql_about_the_deployment_chosen(panel: dict[str, Any]) -> None:
    """Every selector names the job; rates are over Grafana's interval, never a fixed one."""
    if panel["type"] == "logs":
        pytest.skip("LogQL")
    for target in panel["targets"]:
        for selector in selectors(filled(target["expr"])):
            matched = {m.name: m.value for m in selector.matchers.matchers}
            name = selector.name or matched["__name__"]
            if not name.startswith(("otelcol_", "traces_spanmetrics_", "ALERTS")):
                of_the_job = name.startswith("credit_monitor_")
                assert matched["job"] == ("job-monitor" if of_the_job else "job")
        assert not re.search(r"\[\d", target["expr"])


@every_panel
def test_a_number_is_of_now_and_a_line_of_the_time_shown(panel: dict[str, Any]) -> None:
    """A server that is gone is not shown ready because it was an hour ago."""
    if panel["type"] == "logs":
        pytest.skip("lines have times of their own")
    of_now = panel["type"] in {"stat", "bargauge", "barchart", "table"}

    assert {(target["instant"], target["range"]) for target in panel["targets"]} == {
        (of_now, not of_now)
    }


@every_panel
def test_a_series_has_a_name_that_is_no_set_of_braces(panel: dict[str, Any]) -> None:
    """Tables and columns are named by their labels; everything else has a legend."""
    for target in panel["targets"]:
        if target.get("format") == "table" or panel["type"] == "logs":
            continue
        assert target["legendFormat"]


def test_the_same_outcome_has_the_same_colour_everywhere() -> None:
    """APPROVE is never the colour of DECLINE, and no colour is of two outcomes."""
    text = [json.dumps(override) for param in PANELS for override in overrides(param.values[0])]
    for name, colour in panels.OUTCOMES.items():
        of_it = [line for line in text if f'"options": "{name}"' in line]
        assert of_it
        assert all(colour in line for line in of_it)
    assert len(set(panels.OUTCOMES.values())) == len(panels.OUTCOMES)


def overrides(panel: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    """What a panel says about single series."""
    said: list[dict[str, Any]] = panel["fieldConfig"]["overrides"]
    return said


def test_budgets_burn_against_the_objectives_that_alerts_have() -> None:
    """What is allowed is the same number in both, and so are the limits that wake somebody."""
    rules = yaml.safe_load((ROOT / "prometheus" / "rules" / "alerts.yaml").read_text("utf-8"))
    pages = {
        rule["alert"]: rule["expr"]
        for group in rules["groups"]
        for rule in group["rules"]
        if rule["alert"].endswith("BurnPage")
    }

    for alert, objective in (("Availability", service.AVAILABILITY), ("Latency", service.FAST)):
        limits = re.findall(r"> ([\d.]+) \* ([\d.]+)", pages[f"Credit{alert}BurnPage"])
        assert {float(allowed) for _, allowed in limits} == {round(1.0 - objective, 9)}
        assert {float(times) for times, _ in limits} == set(service.BURNS) - {1.0}


def test_lines_are_looked_for_under_names_that_loggers_have() -> None:
    """And under levels that there are."""
    sources = [path.read_text("utf-8") for path in (ROOT / "credit_risk").rglob("*.py")]
    expressions = [
        target["expr"]
        for board in DASHBOARDS.values()
        for panel in board["panels"]
        for target in panel.get("targets", ())
        if panel["type"] == "logs"
    ]
    named, levels = (
        {
            value
            for expression in expressions
            for found in re.findall(rf'{label}=~"(.*?)"', expression)
            for value in found.split("|")
        }
        for label in ("logger", "level")
    )

    assert named
    assert all(any(f'getLogger("{name}")' in text for text in sources) for name in named)
    assert levels
    assert levels <= set(logging.getLevelNamesMapping())


def provisioned(name: str) -> Any:  # noqa: ANN401 - YAML
    """A file of Grafana's provisioning."""
    path = ROOT / "grafana" / "provisioning" / name / "credit-risk.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_way_from_metric_to_trace_to_log_and_back_is_provisioned() -> None:
    """By uids that exist, which panels name too."""
    sources = {source["uid"]: source for source in provisioned("datasources")["datasources"]}
    metrics, traces, logs = (sources[f"credit-{name}"] for name in ("prometheus", "tempo", "loki"))

    destinations = metrics["jsonData"]["exemplarTraceIdDestinations"]
    assert {destination["datasourceUid"] for destination in destinations} == {traces["uid"]}
    assert traces["jsonData"]["tracesToLogsV2"]["datasourceUid"] == logs["uid"]
    assert traces["jsonData"]["serviceMap"]["datasourceUid"] == metrics["uid"]
    (derived,) = logs["jsonData"]["derivedFields"]
    assert derived["datasourceUid"] == traces["uid"]
    assert {"tempo": traces["uid"], "loki": logs["uid"]} == panels.SOURCES


@pytest.mark.parametrize("kind", panels.SOURCES)
def test_a_series_leads_to_its_traces_and_its_lines(kind: str) -> None:
    """By a link to Explore that is one, and keeps the time looked at."""
    links = [
        link["url"]
        for param in PANELS
        for link in param.values[0]["fieldConfig"]["defaults"].get("links", ())  # type: ignore[index]
        if panels.SOURCES[kind] in link["url"]
    ]

    assert links
    for link in links:
        (text,) = parse_qs(urlsplit(link).query)["panes"]
        (pane,) = json.loads(text).values()
        assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
        assert pane["queries"][0]["datasource"] == {"type": kind, "uid": panels.SOURCES[kind]}


def test_a_log_line_gives_its_trace_away() -> None:
    """As the server writes it; a line without a trace leads nowhere."""
    (derived,) = next(
        source["jsonData"]["derivedFields"]
        for source in provisioned("datasources")["datasources"]
        if source["type"] == "loki"
    )
    trace = "0af7651916cd43dd8448eb211c80319c"
    line = f'{{"level":"INFO","message":"request","trace_id":"{trace}","method":"POST"}}'

    found = re.search(derived["matcherRegex"], line)
    assert found is not None
    assert found[1] == trace
    assert not re.search(derived["matcherRegex"], line.replace(f'"{trace}"', "null"))


def test_dashboards_are_provided_from_where_they_are_mounted() -> None:
    """And not to be changed in a browser."""
    (provider,) = provisioned("dashboards")["providers"]

    assert provider["type"] == "file"
    assert not provider["allowUiUpdates"]
