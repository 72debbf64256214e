"""The README says what the code does: settings, figures, versions and commands."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from credit_risk import cli, package, portfolio, scoring
from credit_risk.cli import app
from credit_risk.cli.exits import EXIT_CODES, MISQUEUED, OTHERWISE, UNTIMELY
from credit_risk.decisions import answer
from credit_risk.serving import problems
from credit_risk.settings import PREFIX, Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PORTFOLIOS = portfolio.names(ROOT / "portfolios")


def shipped(name: str) -> package.ModelPackage:
    """The package a portfolio ships as its default."""
    folder = ROOT / "packages" / name
    return package.load(folder / (folder / "default").read_text(encoding="utf-8").strip())


def settings_rows() -> list[str]:
    """The settings table, row by row."""
    words = {"workers": "cores", "portfolios_dir": "`portfolios`", "packages_dir": "`packages`"}
    words["regimes_dir"] = "`regimes`"
    rows = []
    for name, field in Settings.model_fields.items():
        default = words.get(name) or (f"`{field.default}`" if field.default is not None else "")
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return rows


def figure_row(name: str) -> str:
    """A portfolio's row in the table of figures."""
    loaded = shipped(name)
    held_out = loaded.metrics["hold_out"]
    data = loaded.provenance.trained_on
    assert data is not None
    return (
        f"| `{name}` | {data['name']}, {data['licence']} | {held_out['rows']:,} "
        f"| {held_out['roc_auc']:.4f} | {held_out['brier']:.4f} "
        f"| {held_out['ece_equal_count']:.4f} / {held_out['ece_equal_width']:.4f} |"
    )


def application_sent(page: str) -> dict[str, object]:
    """The application in the page's curl."""
    pattern = r"^curl -s http://localhost:3000/predict.*?}'$"
    command = re.search(pattern, page, re.MULTILINE | re.DOTALL)
    assert command is not None
    words = shlex.split(command.group())
    application: dict[str, object] = json.loads(words[words.index("-d") + 1])
    return application


def test_the_curl_gives_the_answer_shown() -> None:
    """Pasted into a fresh server, the first call answers what the README shows."""
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    shown = json.loads(blocks[0])
    loaded = shipped("personal-loans")
    application = loaded.schema.validate_application(application_sent(README))

    (decision,) = scoring.decide(loaded, [application])

    expected = answer(loaded, shown["decision_id"], decision)
    assert shown == expected | {
        "probability_of_default": pytest.approx(expected["probability_of_default"], abs=1e-6)
    }


def test_the_problem_shown_is_one_the_server_gives() -> None:
    """Its type, title and places are those of the table of problems."""
    shown = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[1])
    kind = problems.KINDS["invalid-application"]
    assert (shown["type"], shown["title"], shown["status"]) == (kind.uri, kind.title, kind.status)
    names = shipped("personal-loans").schema.names
    assert {e["pointer"].strip("/") for e in shown["errors"]} <= {*names, "postcode"}


@pytest.mark.parametrize("row", settings_rows())
def test_every_setting_is_in_the_table(row: str) -> None:
    """Name, default and meaning as in the code."""
    assert row in README


def test_no_setting_is_made_up() -> None:
    """Each variable the README names exists."""
    named = set(re.findall(rf"{PREFIX}([A-Z_]+)", README))
    assert named == {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize("name", PORTFOLIOS)
def test_the_figures_are_those_of_the_shipped_package(name: str) -> None:
    """And the card linked is the shipped package's."""
    assert figure_row(name) in README
    assert f"packages/{name}/{shipped(name).version}/card.md" in README


def test_the_exit_codes_are_those_that_the_command_line_tells() -> None:
    """In the same words."""
    told = re.search(r"Exit codes: 0.*?\.", " ".join(str(cli.__doc__).split()))
    assert told is not None
    assert told.group() in " ".join(README.split())
    codes = {int(code) for code in re.findall(r"\d+", told.group())}
    own = {OTHERWISE, MISQUEUED, UNTIMELY}
    assert codes == {0, 2, 130, 143} | own | {code for _, code in EXIT_CODES}


def shell(page: str) -> str:
    """Everything that a page has to paste into a shell."""
    return "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/portfolios.md",
        "docs/operation.md",
        "docs/runbook.md",
        "docs/simulation.md",
        "docs/retraining.md",
        "docs/promotion.md",
    ],
)
def test_every_command_shown_exists(name: str) -> None:
    """Each `credit-risk` line in a shell block parses with its options."""
    page = (ROOT / name).read_text(encoding="utf-8")
    commands = re.findall(r"^(?:\w+=\S+ )*credit-risk (.*?)(?:\s+#.*)?$", shell(page), re.MULTILINE)
    assert commands
    for line in commands:
        words = shlex.split(line)
        group = get_command(app)
        path = []
        while words and words[0] in getattr(group, "commands", {}):
            path.append(words[0])
            group = group.commands[words.pop(0)]  # type: ignore[attr-defined]
        helped = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"}).output
        assert path or words == ["--help"]
        for option in (w for w in words if w.startswith("--")):
            assert option in helped


def test_the_programs_are_put_on_the_path_before_they_are_named() -> None:
    """What is pasted works in the shell in which everything above was pasted."""
    lines = shell(README).splitlines()
    made = [line.split()[0] for line in lines if re.match(r"(credit-risk|python|bentoml) ", line)]
    first = next(i for i, line in enumerate(lines) if line.startswith(made[0]))

    assert any(line.startswith('export PATH="$PWD/.venv/bin:') for line in lines[:first])
