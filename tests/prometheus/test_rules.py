"""prometheus/rules and docs/runbook.md: rules do what they say, alerts explain themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from credit_risk.serving import problems
from credit_risk.serving.app import SCORING
from credit_risk.settings import Settings

ROOT = Path(__file__).parents[2]
RULES = ROOT / "prometheus" / "rules"
TESTS = sorted((RULES / "tests").glob("*.yaml"))
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")


@cache
def rules() -> tuple[dict[str, Any], ...]:
    """All recording rules and alerts."""
    groups = [
        group
        for path in sorted(RULES.glob("*.yaml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    ]
    return tuple(rule for group in groups for rule in group["rules"])


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(*arguments: str | Path) -> None:
    """Run Prometheus' own checker; what it says is shown where it is not content."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("Prometheus is not installed: on Debian, apt install prometheus")
    done = subprocess.run(  # noqa: S603 - Prometheus' own program
        [program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def section(alert: str) -> str:
    """What the runbook has to say about an alert."""
    found = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert found is not None, alert
    return found.group(1)


def test_prometheus_takes_the_rules() -> None:
    """Names, expressions and templates."""
    promtool("check", "rules", *sorted(RULES.glob("*.yaml")))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    """On series made up for it, evaluated by Prometheus itself."""
    promtool("test", "rules", path)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_seen_to_stay_quiet_to_fire_and_to_end(alert: str) -> None:
    """In this order, in one test of some file."""
    seen = []
    for path in TESTS:
        for test in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            looks = [look for look in test["alert_rule_test"] if look["alertname"] == alert]
            seen.append([bool(look["exp_alerts"]) for look in looks])

    assert [False, True, False] in seen


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_what_is_wrong_and_where_to_go_on(alert: str) -> None:
    """In words, with a dashboard that exists and a section of the runbook."""
    rule = ALERTS[alert]
    said = rule["annotations"]
    dashboard = said["dashboard"].removeprefix("/d/")

    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert said["summary"].endswith(".")
    assert said["description"].endswith(".")
    assert (ROOT / "grafana" / "dashboards" / f"{dashboard}.json").is_file()
    assert said["runbook"] == f"docs/runbook.md#{alert.lower()}"
    for part in ("Means", "First checks", "Mitigate", "Escalate"):
        assert f"**{part}.**" in section(alert)


def test_objectives_are_about_the_routes_that_decide() -> None:
    """Each rule names all of them, or parts them in two by how long they may take."""
    named = {found for rule in rules() for found in re.findall(r'route=~?"(.*?)"', rule["expr"])}

    routes = {frozenset(found.split("|")) for found in named}
    assert routes == {
        frozenset(SCORING),
        frozenset(SCORING) - {"/predict/batch"},
        frozenset({"/predict/batch"}),
    }


def test_the_runbook_speaks_of_problems_settings_and_loggers_that_there_are() -> None:
    """What is to be looked for can be found."""
    problems_named = re.findall(
        r"^\| (`.*?) \|", section("CreditAvailabilityBurnPage"), re.MULTILINE
    )
    slugs = {slug for row in problems_named for slug in re.findall(r"`(.*?)`", row)}
    settings_named = re.findall(r"`CREDIT_RISK_(\w+)`", RUNBOOK)
    loggers = re.findall(r'logger="(.*?)"', RUNBOOK)
    sources = [
        path.read_text("utf-8")
        for package in ("credit_risk", "monitoring")
        for path in (ROOT / package).rglob("*.py")
    ]

    assert slugs
    assert slugs <= set(problems.KINDS)
    assert {name.lower() for name in settings_named} <= set(Settings.model_fields)
    assert loggers
    assert all(any(f'getLogger("{name}")' in text for text in sources) for name in loggers)


def test_the_runbook_knows_no_other_alerts() -> None:
    """A section whose alert is gone goes with it."""
    assert re.findall(r"^## (.*)$", RUNBOOK, re.MULTILINE) == list(ALERTS)


@pytest.mark.parametrize(
    "metric", ["http_requests:increase", "http_errors:ratio_rate", "http_slow:ratio_rate"]
)
def test_every_window_of_an_objective_is_counted_alike(metric: str) -> None:
    """So that a budget that burns means the same over an hour and over three days."""
    found = {
        rule["record"].removeprefix(f"credit:{metric}"): rule["expr"]
        for rule in rules()
        if rule.get("record", "").startswith(f"credit:{metric}")
    }

    assert list(found) == ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"]
    same = {
        expression.replace(f"[{window}]", "[]")
        .replace(f"increase{window} ", "increase ")
        .replace(f"increase{window}\n", "increase\n")
        for window, expression in found.items()
    }
    assert len(same) == 1
