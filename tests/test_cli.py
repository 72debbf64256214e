"""The command line: what each command prints, and how each kind of error ends it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ValidationError

from credit_risk import __version__, bulk, cli, documents, errors, scoring
from credit_risk.audit import keys
from credit_risk.audit.database import REVISION
from credit_risk.audit.keys import new_encryption_key
from credit_risk.audit.log import open_log
from credit_risk.audit.records import Record
from credit_risk.decisions import new_id
from credit_risk.errors import CreditRiskError
from credit_risk.policy import Policy
from credit_risk.serving.store import DEFAULT, Store
from credit_risk.settings import PREFIX, Settings
from tests import leases, served, toys
from tests.sealing import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from credit_risk.package import ModelPackage

ROOT = Path(__file__).parents[1]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours: some build servers ask for them though nobody looks."""
PLAIN = ("PORTFOLIO", "PORT", "WORKERS", "STATE_DIR", "MODEL_VERSION")


@dataclass
class Outcome:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:  # noqa: ANN401 - any JSON
        """Standard output, read as JSON."""
        return json.loads(self.out)


@dataclass
class Place:
    """A toy portfolio with its shipped packages and a state directory, all made up."""

    folder: Path
    trees: str
    linear: str

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.folder / "state"

    def store(self) -> Store:
        """The store under the state directory."""
        return Store(Settings(state_dir=self.state, packages_dir=self.folder / "shipped"))

    def alter(self, version: str, name: str) -> None:
        """Alter a file of an installed package."""
        file = self.store().path(toys.NAME, version) / name
        file.write_bytes(file.read_bytes() + b" ")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Where the commands of a test run; the environment leads there."""
    for name in list(os.environ):
        if name.upper() in PLAIN or name.upper().startswith(PREFIX):
            monkeypatch.delenv(name)
    toys.write_portfolio(tmp_path / "portfolios")
    shipped = tmp_path / "shipped"
    made = Place(
        tmp_path,
        trees=toys.write_package(shipped, "trees").name,
        linear=toys.write_package(shipped, "linear").name,
    )
    (shipped / toys.NAME / DEFAULT).write_text(f"{made.trees}\n", encoding="utf-8")
    monkeypatch.setenv("CREDIT_RISK_PORTFOLIOS_DIR", str(tmp_path / "portfolios"))
    monkeypatch.setenv("CREDIT_RISK_PACKAGES_DIR", str(shipped))
    monkeypatch.setenv("STATE_DIR", str(made.state))
    monkeypatch.setenv("PORTFOLIO", toys.NAME)
    monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", KEY)  # as of the servers in this process
    monkeypatch.setattr(cli.out, "width", 80)
    return made


@pytest.fixture
def run(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run a command as the installed program does."""
    assert place.folder.is_dir()

    def command(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["credit-risk", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return Outcome(code or 0, ESCAPES.sub("", printed.out), ESCAPES.sub("", printed.err))

    return command


def refused(outcome: Outcome, code: int, *told: str) -> None:
    """It ended with that code, and one line on standard error that says why."""
    assert outcome.code == code
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    for words in told:
        assert words in line


def decide(place: Place, package: ModelPackage, *bodies: object) -> list[str]:
    """Have a server answer; returns the ids of its records, the oldest first."""
    return decide_in(place.state, package, *bodies)


def decide_in(state: Path, package: ModelPackage, *bodies: object) -> list[str]:
    """`decide` with another state directory."""
    with served.serving(package, state) as server:
        for body in bodies:
            server.post("/predict", body)
        return [record.id for record in reversed(server.records())]


# Usage


def test_it_prints_its_version(run: Callable[..., Outcome]) -> None:
    """That of the installed program."""
    assert run("version").out == f"{__version__}\n"


def test_it_runs_as_a_program_of_its_own(place: Place) -> None:
    """Not only as the function that the other tests call; errors leave no traceback."""
    command = [sys.executable, "-m", "credit_risk.cli", "decisions", "show", "0193"]
    done = subprocess.run(  # noqa: S603 - our own program
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == f"error: no records yet: {place.state}/records.db does not exist\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "Usage"),
        (("models",), "Usage"),
        (("decisions",), "Usage"),
        (("nope",), "nope"),
        (("serve", "--nope"), "--nope"),
        (("models", "activate"), "version"),
        (("decisions", "show"), "ID"),
        (("decisions", "list", "--decision", "MAYBE"), "MAYBE"),
        (("decisions", "list", "--kind", "rumour"), "rumour"),
        (("decisions", "list", "--limit", "0"), "--limit"),
        (("decisions", "list", "--limit", "many"), "--limit"),
        (("decisions", "list", "--since", "yesterday"), "--since"),
        (("train",), "--data"),
        (("train", "--data", "x.csv", "--estimator", "oracle"), "oracle"),
        (("evaluate",), "--data"),
        (("package",), "file"),
        (("package", "pipeline.joblib"), "--data"),
        (("replay",), "--all"),
        (("replay", "0193", "--all"), "--all"),
        (("replay", "0193", "--since", "2026-11-01"), "--all"),
        (("replay", "0193", "--changes", "changes.jsonl"), "--all"),
        (("replay", "--all", "--since", "yesterday"), "--since"),
        (("replay", "--all", "--limit", "-1"), "--limit"),
    ],
)
def test_wrong_usage_ends_with_2(
    run: Callable[..., Outcome], arguments: tuple[str, ...], told: str
) -> None:
    """And shows the right one."""
    outcome = run(*arguments)

    assert outcome.code == 2
    assert told in outcome.out + outcome.err
    assert "Traceback" not in outcome.err


def test_an_unknown_portfolio_is_told_with_those_that_there_are(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given as an option or as a setting; nothing is made for it."""
    told = ("no portfolio 'submarine-leases'", f"(there are: {toys.NAME})")
    file = str(leases_file(place))
    for command in (
        ("models", "list"),
        ("models", "activate", "0123456789ab"),
        ("models", "rollback"),
        ("decisions", "list"),
        ("evaluate", "--data", file),
        ("train", "--data", file),
        ("package", file, "--data", file),
        ("score", file, f"{file}.out.csv"),
        ("replay", "--all"),
    ):
        refused(run(*command, "--portfolio", "submarine-leases"), 3, *told)
    monkeypatch.setenv("PORTFOLIO", "submarine-leases")
    refused(run("serve"), 3, *told)
    assert not place.state.exists()


def test_a_portfolio_outside_the_folder_is_refused(
    run: Callable[..., Outcome], place: Place
) -> None:
    """A name is a name and no path."""
    toys.write_portfolio(place.folder / "elsewhere")

    refused(run("models", "list", "--portfolio", f"../elsewhere/{toys.NAME}"), 3)


def test_a_missing_file_is_told_at_once(run: Callable[..., Outcome], place: Place) -> None:
    """Whichever of a command's files it is, and before it is called a pickle."""
    here, gone, folder = str(leases_file(place)), "nowhere.csv", str(place.folder)
    for command in (
        ("evaluate", "--data", "{}"),
        ("train", "--data", "{}"),
        ("package", here, "--data", "{}"),
        ("package", "{}", "--data", here),
        ("score", "{}", f"{here}.out.csv"),
        ("replay", "--all", "--policy", "{}"),
    ):
        refused(run(*(word.format(gone) for word in command)), 3, "nowhere.csv does not exist")
        refused(run(*(word.format(folder) for word in command)), 1, f"{folder} is a folder")
    assert not place.state.exists()


def kinds(error: type[Exception]) -> list[type[Exception]]:
    """The error and everything under it."""
    return [error, *(below for kind in error.__subclasses__() for below in kinds(kind))]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CreditRiskError, 1),
        (errors.PortfolioInvalid, 1),
        (errors.PackageInvalid, 1),
        (errors.DataInvalid, 1),
        (errors.OutputRefused, 1),
        (errors.ExplanationFailed, 1),
        (errors.CannotServe, 1),
        (errors.NotADecision, 1),
        (errors.PortfolioNotFound, 3),
        (errors.PackageNotFound, 3),
        (errors.FileNotFound, 3),
        (errors.RecordNotFound, 3),
        (errors.RecordingFailed, 4),
        (OSError, 1),
    ],
)
def test_each_kind_of_error_ends_with_its_code(
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    error: type[Exception],
    code: int,
) -> None:
    """And with one line, however many the error has."""

    def fail() -> None:
        raise error("this is\nwhy")

    monkeypatch.setattr(cli, "app", fail)

    outcome = run()

    assert (outcome.code, outcome.out, outcome.err) == (code, "", "error: this is why\n")


def test_every_error_of_ours_has_a_code() -> None:
    """Those to come included; what is not there has the same one, whatever it is."""
    for error in kinds(CreditRiskError):
        code = next(code for kind, code in cli.EXIT_CODES if issubclass(error, kind))
        assert (code == 3) == issubclass(error, errors.NotFound)


def test_reading_makes_nothing(run: Callable[..., Outcome], place: Place) -> None:
    """Somebody who looks, or looks in the wrong place, leaves no database and no folder there."""
    source = str(leases_file(place))
    none = f"no records yet: {place.state}/records.db does not exist"

    assert run("models", "list").code == 0
    assert run("settings").code == 0
    assert run("score", source, str(place.folder / "out.csv")).code == 0
    refused(run("decisions", "list"), 3, none)
    refused(run("decisions", "list", "--json"), 3, none)
    refused(run("decisions", "show", "0193"), 3, none)
    refused(run("replay", "0193"), 3, none)
    refused(run("replay", "--all"), 3, none)
    refused(run("keys", "rewrap"), 3, none)
    refused(run("decisions", "erase", "0193", "--reason", "asked for", "--yes"), 3, none)
    refused(run("retention", "--delete", "--yes"), 3, none)
    refused(run("database", "status"), 3, none)
    refused(run("database", "upgrade"), 3, none)

    assert not place.state.exists()


def test_results_go_to_standard_output_and_the_rest_does_not(
    run: Callable[..., Outcome], place: Place
) -> None:
    """With --json there is JSON and nothing else, whatever is told meanwhile."""
    for command in (("version",), ("settings",), ("models", "list")):
        assert run(*command, "--json").json()
    done = run("score", str(leases_file(place)), str(place.folder / "out.csv"), "--json")
    assert done.json()["rows"] == 3
    assert "scoring" in done.err


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "train", "package", "evaluate", "score", "settings", "version"),
        *("models list", "models activate", "models rollback", "decisions list", "decisions show"),
        *("decisions erase", "retention"),
        *("keys encryption", "keys signing", "keys rewrap", "database status", "database upgrade"),
        *("reviews list", "reviews summary"),
        *("audit verify", "audit checkpoint", "audit checkpoints", "audit public-key"),
        "audit proof",
    ],
)
def test_every_command_explains_itself(run: Callable[..., Outcome], command: str) -> None:
    """What it does, in whole sentences, and each of its parameters."""
    outcome = run(*command.split(), "--help")

    assert outcome.code == 0
    assert f"credit-risk {command}" in outcome.out
    assert ("--json" in outcome.out) == (command != "serve")
    assert "``" not in outcome.out


def test_a_reader_who_goes_away_is_no_error_to_tell(place: Place) -> None:
    """As ``| head`` does, while much is still to be written and when all of it fits the pipe."""
    with closing(open_log(Settings(state_dir=place.state))) as log:
        log.append([activated(place) for _ in range(400)]).result()
    for limit in ("1", "400"):
        with subprocess.Popen(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "credit_risk.cli", "decisions", "list", "--all", "--json"),
                *("--limit", limit),
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == ""
        assert process.returncode == 1


def activated(place: Place) -> Record:
    """A record of somebody's switch."""
    return Record(
        id=new_id(),
        kind="activation",
        time=0,
        portfolio=toys.NAME,
        request_id=new_id(),
        model_version=place.trees,
        policy_version=None,
        decision=None,
        status=None,
        body={"action": "activate", "from": place.linear, "to": place.trees},
    )


# Models


def test_models_are_listed_and_the_active_one_is_marked(
    run: Callable[..., Outcome], place: Place
) -> None:
    """Whether they are in the store or only shipped so far."""
    shipped = run("models", "list", "--json").json()
    assert [row["installed"] for row in shipped] == [None, None]
    run("models", "activate", place.trees)
    rows = run("models", "list", "--json").json()

    assert {row["version"]: row["active"] for row in rows} == {
        place.trees: True,
        place.linear: False,
    }
    for row in rows:
        assert set(row) == {"version", "active", "estimator", "installed", "path", "broken"}
        assert (row["estimator"], row["broken"]) == ("written by hand", None)
        assert datetime.fromisoformat(row["installed"]).tzinfo
        assert (Path(row["path"]) / "manifest.json").is_file()
    table = run("models", "list").out.splitlines()
    assert table[0].split() == ["version", "active", "estimator", "installed"]
    marked = [line.split()[0] for line in table if "*" in line]
    assert (len(table), marked) == (3, [place.trees])


def test_without_a_default_no_model_is_marked(run: Callable[..., Outcome], place: Place) -> None:
    """Listing is still possible: somebody has to choose."""
    (place.folder / "shipped" / toys.NAME / DEFAULT).unlink()

    rows = run("models", "list", "--json").json()

    assert [row["active"] for row in rows] == [False, False]


def test_a_broken_package_is_listed_as_one_and_stops_no_other(
    run: Callable[..., Outcome], place: Place
) -> None:
    """In the store or shipped; the place is named, and another version can be activated."""
    run("models", "activate", place.trees)
    half = place.store().path(toys.NAME, place.linear).parent
    (half / "model.yaml").unlink()
    shipped = place.folder / "shipped" / toys.NAME / "0123456789ab"
    shipped.mkdir()

    rows = {row["version"]: row for row in run("models", "list", "--json").json()}
    assert rows[place.trees]["broken"] is None
    assert str(half / "model.yaml") in rows[place.linear]["broken"]
    assert f"{shipped}: manifest.json" in rows["0123456789ab"]["broken"]

    listed = run("models", "list")
    assert listed.code == 0
    states = {line.split()[0]: line for line in listed.out.splitlines()[1:]}
    assert [version for version, line in states.items() if "broken" in line] == [
        place.linear,
        "0123456789ab",
    ]
    assert str(half / "model.yaml") in listed.err
    assert str(shipped) in listed.err
    refused(run("models", "activate", place.linear), 1, str(half / "model.yaml"))
    assert run("models", "activate", place.trees).code == 0


def test_a_version_is_activated_and_rolled_back(run: Callable[..., Outcome], place: Place) -> None:
    """Both say what happened and name the record of it."""
    record = run("models", "activate", place.linear, "--json").json()
    assert record["kind"] == "activation"
    assert record["model_version"] == place.linear
    assert (record["body"]["from"], record["body"]["to"]) == (place.trees, place.linear)
    assert active(run) == place.linear

    said = run("models", "rollback").out
    assert said.startswith(f"{toys.NAME}: {place.trees} decides from now on")
    assert f"(before: {place.linear})" in said
    assert active(run) == place.trees

    said = run("models", "activate", place.linear).out
    record_id = said.split("record ")[1].strip()
    shown = run("decisions", "show", record_id, "--json").json()
    assert shown["body"]["action"] == "activate"
    assert run("models", "rollback", "--json").json()["body"]["action"] == "rollback"


def active(run: Callable[..., Outcome]) -> str:
    """The version that the list marks."""
    (version,) = [r["version"] for r in run("models", "list", "--json").json() if r["active"]]
    assert isinstance(version, str)
    return version


def test_what_is_not_there_ends_with_3(run: Callable[..., Outcome]) -> None:
    """A version, something to go back to, a record, a page."""
    refused(run("models", "activate", "0123456789ab"), 3, "no package 0123456789ab")
    refused(run("models", "rollback"), 3, "there is no version to go back to")
    assert run("decisions", "list", "--json").json() == []
    refused(run("decisions", "show", "0193"), 3, "no record has the id 0193")
    refused(run("replay", "0193"), 3, "no record has the id 0193")
    refused(run("replay", "--all", "--model", "0123456789ab"), 3, "no package 0123456789ab")
    refused(run("decisions", "list", "--before", "0193"), 3, "no record has the id 0193")


def test_an_altered_package_is_refused_by_the_name_of_the_file(
    run: Callable[..., Outcome], place: Place
) -> None:
    """With 1, and nothing is activated."""
    run("models", "activate", place.trees)
    place.alter(place.linear, "policy.yaml")

    refused(run("models", "activate", place.linear), 1, place.linear, "policy.yaml was altered")
    assert active(run) == place.trees


def test_an_altered_shipped_package_is_refused_by_the_name_of_the_file(
    run: Callable[..., Outcome], place: Place
) -> None:
    """It does not get into the store; the others do."""
    shipped = place.folder / "shipped" / toys.NAME / place.linear
    (shipped / "reasons.yaml").write_text("none", encoding="utf-8")

    outcome = run("models", "activate", place.linear)
    assert outcome.code == 1
    *_, line = outcome.err.splitlines()
    assert line.startswith(f"error: {shipped}: package {place.linear}: reasons.yaml was altered")
    assert run("models", "activate", place.trees).code == 0


def test_a_pinned_version_is_not_switched(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would change nothing about this server."""
    monkeypatch.setenv("MODEL_VERSION", place.trees)

    refused(run("models", "activate", place.linear), 1, f"MODEL_VERSION pins {place.trees}")
    assert active(run) == place.trees


# Decisions


def test_a_record_is_shown_whole(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """As JSON, or as a list of its fields."""
    decision, refusal = decide(place, trees_package, toys.RISKY, {"age": 5})

    shown = run("decisions", "show", decision, "--json").json()
    assert shown["id"] == decision
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", shown["time"])
    assert shown["decision"] == "DECLINE"
    assert shown["personal"] == {"input": toys.RISKY}
    assert shown["body"]["package_sha256"] == trees_package.digest
    text = run("decisions", "show", decision).out
    for told in (decision, "DECLINE", "VERY_HIGH", "probability_of_default", trees_package.version):
        assert told in text
    assert run("decisions", "show", refusal, "--json").json()["status"] == 422


def test_decisions_are_listed_the_newest_first(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Other records only where they are asked for."""
    ids = decide(place, trees_package, toys.RISKY, {"age": 5}, toys.SAFE)

    assert listed(run) == [ids[2], ids[0]]
    assert listed(run, "--all") == ids[::-1]
    assert listed(run, "--kind", "refusal") == [ids[1]]
    assert listed(run, "--kind", "failure") == []
    run("models", "activate", place.linear)
    (activation,) = listed(run, "--kind", "activation")
    assert listed(run, "--all") == [activation, *ids[::-1]]


def listed(run: Callable[..., Outcome], *filters: str) -> list[str]:
    """The ids that are listed."""
    return [row["id"] for row in run("decisions", "list", "--json", *filters).json()]


def test_decisions_are_filtered(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    linear_package: ModelPackage,
) -> None:
    """By outcome, by package, by portfolio, and by several at once."""
    risky, safe = decide(place, trees_package, toys.RISKY, toys.SAFE)
    (other,) = decide(place, linear_package, toys.RISKY)

    assert listed(run, "--decision", "DECLINE") == [other, risky]
    assert listed(run, "--decision", "APPROVE") == [safe]
    assert listed(run, "--decision", "REVIEW") == []
    assert listed(run, "--model-version", linear_package.version) == [other]
    both = ("--decision", "DECLINE", "--model-version", trees_package.version)
    assert listed(run, *both) == [risky]


def test_records_outlive_their_portfolio(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """A product that is sold no longer was decided about; one that never was is unknown."""
    (risky,) = decide(place, trees_package, toys.RISKY)
    (place.folder / "portfolios" / toys.NAME).rename(place.folder / "portfolios" / "new-leases")

    assert listed(run) == [risky]
    assert listed(run, "--portfolio", "new-leases") == []
    refused(run("decisions", "list", "--portfolio", "another"), 3, "(there are: new-leases)")


def test_decisions_are_listed_page_by_page(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Each page continues after the last id of the one before."""
    ids = decide(place, trees_package, *[toys.SAFE] * 5)[::-1]

    pages = [listed(run, "--limit", "2")]
    while pages[-1]:
        pages.append(listed(run, "--limit", "2", "--before", pages[-1][-1]))

    assert pages == [ids[:2], ids[2:4], ids[4:], []]


def test_decisions_are_found_by_time(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """To the microsecond: the first instant belongs to the range, the last does not."""
    ids = decide(place, trees_package, *[toys.SAFE] * 3)
    rows = {row["id"]: row["time"] for row in run("decisions", "list", "--json").json()}
    middle = rows[ids[1]]
    assert rows[ids[0]] < middle < rows[ids[2]]

    assert listed(run, "--since", middle) == [ids[2], ids[1]]
    assert listed(run, "--until", middle) == [ids[0]]
    assert listed(run, "--since", middle, "--until", rows[ids[2]]) == [ids[1]]
    assert listed(run, "--since", middle.removesuffix("Z")) == [ids[2], ids[1]]
    moment = datetime.fromisoformat(middle)
    in_tokyo = moment.astimezone(timezone(timedelta(hours=9))).isoformat()
    assert listed(run, "--since", in_tokyo) == [ids[2], ids[1]]
    after = (moment + timedelta(microseconds=1)).isoformat()
    assert listed(run, "--since", after) == [ids[2]]


def test_what_waits_for_people_is_listed_the_oldest_first(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """With who has claimed it, and what waits for a second person; in pages, and by state."""
    referred = toys.SAFE | {"years_employed": None}
    with served.serving(trees_package, place.state) as server:
        ids = [
            server.post("/predict", application).json()["decision_id"]
            for application in (referred, toys.RISKY, referred)
        ]
        server.post(f"/decisions/{ids[0]}/claim", {"reviewer": "ada"})
        said = {"reviewer": "ben", "decision": "APPROVE", "reason": "COMPENSATING_FACTORS"}
        server.post(f"/decisions/{ids[1]}/review", said | {"note": "Known for years."})

    lines = run("reviews", "list").out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ids
    assert [line.split()[2] for line in lines] == ["claimed", "proposed", "open"]
    assert "ada" in lines[0]
    assert lines[1].rstrip().endswith("APPROVE by ben")
    rows = run("reviews", "list", "--json", "--limit", "1", "--after", ids[1]).json()
    assert [row["decision_id"] for row in rows] == [ids[2]]
    assert [r["holder"] for r in run("reviews", "list", "--state", "claimed", "--json").json()] == [
        "ada"
    ]
    refused(run("reviews", "list", "--after", "x"), 3, "no decision")


def test_overrides_are_summed_up(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """By direction, with the rate and the reasons; as JSON too."""
    with served.serving(trees_package, place.state) as server:
        declined = server.post("/predict", toys.RISKY).json()["decision_id"]
        said = {"decision": "APPROVE", "reason": "COMPENSATING_FACTORS", "note": "Known for years."}
        for name in ("ada", "ben"):
            server.post(f"/decisions/{declined}/review", said | {"reviewer": name})

    assert run("reviews", "summary").out.splitlines() == [
        f"{toys.NAME}: 1 reviews closed (1 approved, 0 declined), 0 waiting now",
        "  low-side: 1 of 1 decisions of DECLINE (100.00%): COMPENSATING_FACTORS 1",
    ]
    told = run("reviews", "summary", "--since", "2100-01-01", "--json").json()
    assert (told["overrides"], told["since"]) == ([], "2100-01-01T00:00:00.000000Z")


def test_no_records_are_no_reviews(run: Callable[..., Outcome], place: Place) -> None:
    """A portfolio's name that is mistyped is told first."""
    refused(run("reviews", "list"), 3, "no records yet")
    refused(run("reviews", "summary", "--portfolio", "tricycles"), 3, "no portfolio 'tricycles'")
    assert not place.state.exists()


@pytest.mark.parametrize("columns", ["40", "80"])
def test_no_terminal_is_too_narrow_for_what_is_to_be_copied(
    place: Place, trees_package: ModelPackage, columns: str
) -> None:
    """Ids, digests and paths are whole and on one line, whatever the width."""
    long = place.state / ("long" * 30)
    (decision,) = decide_in(long, trees_package, toys.RISKY)
    environment = os.environ | {"COLUMNS": columns, "STATE_DIR": str(long)}

    def told(*arguments: str) -> str:
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "credit_risk.cli", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    record = told("decisions", "show", decision)
    for value in (decision, trees_package.digest, json.dumps(toys.RISKY)):
        assert re.search(rf"^\w+ +{re.escape(value)}$", record, re.MULTILINE)
    assert f" {decision} " in told("decisions", "list")
    assert f" {place.trees} " in told("models", "list")
    assert f"\nCREDIT_RISK_STATE_DIR={long}\n" in told("settings")


def test_a_list_never_cuts_an_id(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """It is there to be copied, and a pipe has no width."""
    ids = decide(place, trees_package, toys.RISKY, {"age": 5})

    lines = run("decisions", "list", "--all").out.splitlines()

    assert lines[0].split() == ["id", "time", "kind", "status", "decision", "PD", "model"]
    refusal, decision = (line.split() for line in lines[1:])
    assert decision[0] == ids[0]
    assert decision[2:5] == ["decision", "200", "DECLINE"]
    assert decision[5:] == ["0.9707", trees_package.version]
    assert refusal[0] == ids[1]
    assert refusal[2:] == ["refusal", "422", trees_package.version]


# Replay


def altered(place: Place, record_id: str, **changed: object) -> None:
    """Alter a record in the database, as nobody should."""
    with closing(sqlite3.connect(place.state / "records.db")) as database:
        (body,) = database.execute("SELECT body FROM records WHERE id = ?", (record_id,)).fetchone()
        text = json.dumps(json.loads(body) | changed)
        database.execute("UPDATE records SET body = ? WHERE id = ?", (text, record_id))
        database.commit()


def erase(place: Place, record_id: str) -> None:
    """Take the key to an applicant's data away."""
    with closing(sqlite3.connect(place.state / "records.db")) as database:
        database.execute("UPDATE records SET data_key = NULL WHERE id = ?", (record_id,))
        database.commit()


def milder(place: Place) -> Path:
    """A policy that approves up to a PD of 0.35 where the toy one does up to 0.2."""
    file = place.folder / "milder.yaml"
    file.write_text(toys.POLICY.replace(" 0.2,", " 0.35,"), encoding="utf-8")
    return file


def test_a_decision_is_made_again(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """With the package it names, though another one is active by now; nothing is recorded."""
    (decision,) = decide(place, trees_package, toys.RISKY)
    run("models", "activate", place.linear)
    before = listed(run, "--all")

    outcome = run("replay", decision)
    assert (outcome.code, outcome.out) == (0, "MATCH: the recorded answer comes out again\n")
    told = run("replay", decision, "--json")
    assert told.code == 0
    assert told.json()["verdict"] == "MATCH"
    assert told.json()["recorded"] == told.json()["replayed"]
    assert listed(run, "--all") == before


def test_a_decision_that_comes_out_otherwise_is_told_and_ends_with_5(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """By what differs, as recorded and as replayed."""
    (decision,) = decide(place, trees_package, toys.RISKY)
    altered(place, decision, risk_band="LOW")

    outcome = run("replay", decision)

    assert outcome.code == 5
    first, *table = outcome.out.splitlines()
    assert first.startswith("ENVIRONMENT_CHANGED: ")
    assert any(line.split() == ["risk_band", '"LOW"', '"VERY_HIGH"'] for line in table)
    assert run("replay", decision, "--json").code == 5


def test_a_decision_whose_package_is_altered_or_gone_cannot_be_made_again(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """It is said which, and the command ends with 5."""
    (decision,) = decide(place, trees_package, toys.RISKY)
    run("models", "activate", place.trees)
    place.alter(place.trees, "policy.yaml")

    told = run("replay", decision)
    assert told.code == 5
    assert told.out.startswith("NOT_REPRODUCIBLE: ")
    assert "policy.yaml was altered" in told.out
    shutil.rmtree(place.state / "bentoml" / "models" / toys.NAME / place.trees)
    shutil.rmtree(place.folder / "shipped" / toys.NAME / place.trees)
    told = run("replay", decision, "--json")
    assert (told.code, told.json()["cause"]) == (5, "package-missing")


def test_a_decision_whose_application_cannot_be_read_cannot_be_made_again(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sealed with a key that is not in force, or erased; of all, only the former is a fault."""
    ids = decide(place, trees_package, toys.RISKY, toys.SAFE)
    monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", new_encryption_key())
    told = run("replay", ids[0], "--json")
    assert (told.code, told.json()["cause"]) == (5, "input-sealed")
    assert run("replay", "--all").code == 5
    for record_id in ids:
        erase(place, record_id)
    told = run("replay", ids[0], "--json")
    assert (told.code, told.json()["cause"]) == (5, "input-erased")
    assert run("replay", "--all").code == 0


def test_evidence_on_a_package_is_a_folder_of_its_own(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """With what was decided, and a word on what is missing."""
    ids = decide(place, trees_package, toys.RISKY, *toys.applications(3))
    with served.serving(trees_package, place.state) as server:
        said = {"decision": "APPROVE", "reason": "COMPENSATING_FACTORS", "note": "Known for years."}
        for name in ("ada", "ben"):
            server.post(f"/decisions/{ids[0]}/review", said | {"reviewer": name})
    folder = place.folder / "pack"

    done = run("evidence", place.trees, "--out", str(folder), "--json").json()

    found = json.loads((folder / "evidence.json").read_text())
    assert done["folder"] == str(folder)
    assert {"fairness", "outcomes"} <= set(done["missing"])
    assert found["model_version"] == place.trees
    assert found["topics"]["decisions"]["statements"][0]["text"].startswith("4 decisions")
    reviews = " ".join(s["text"] for s in found["topics"]["reviews"]["statements"])
    assert "low-side" in reviews
    assert "Known for years" not in json.dumps(found)
    assert "MATCH 4" in found["topics"]["replay"]["statements"][0]["text"]
    refused(run("evidence", place.trees, "--out", str(folder)), 1, "is there already")
    refused(run("evidence", "nowhere", "--out", str(place.folder / "other")), 3, "nowhere")
    assert not (place.folder / "other").exists()


def test_only_decisions_are_replayed(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """A refusal decided nothing."""
    (refusal,) = decide(place, trees_package, {"age": 5})

    refused(run("replay", refusal), 1, refusal, "refusal")


def test_history_is_replayed(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Every decision, by whichever package it was made, and none that is no decision."""
    decide(place, trees_package, toys.RISKY, {"age": 5}, *toys.applications(8))
    decide(place, toys.load_package("linear"), toys.SAFE, toys.RISKY)

    told = run("replay", "--all", "--json")

    assert told.code == 0
    assert told.json()["records"] == 11
    assert told.json()["verdicts"]["MATCH"] == 11
    assert told.json()["candidate"] is None
    assert told.json()["newly"] == {"APPROVE": 0, "REVIEW": 0, "DECLINE": 0}
    text = run("replay", "--all").out
    assert text.startswith(f"{toys.NAME}: 11 decisions replayed in ")
    assert "MATCH: 11" in text
    assert "NOT_REPRODUCIBLE" not in text


def test_history_that_came_out_otherwise_ends_with_5(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """All that is no match goes to the file of changes; one that is erased is nobody's fault."""
    ids = decide(place, trees_package, toys.RISKY, toys.SAFE, *toys.applications(4))
    erase(place, ids[2])
    changes = place.folder / "changes.jsonl"

    told = run("replay", "--all", "--json", "--changes", str(changes))
    assert told.code == 0
    assert told.json()["not_reproducible"]["input-erased"]["records"] == 1
    (line,) = map(json.loads, changes.read_text(encoding="utf-8").splitlines())
    assert (line["decision_id"], line["cause"]) == (ids[2], "input-erased")
    # What is there already is never written over.
    refused(run("replay", "--all", "--changes", str(changes)), 1, str(changes))

    altered(place, ids[1], log_odds=0.0)
    changes.unlink()
    told = run("replay", "--all", "--changes", str(changes))
    assert told.code == 5
    assert "ENVIRONMENT_CHANGED: 1" in told.out
    assert "input-erased: 1, such as: the application was erased" in told.out
    lines = [json.loads(line) for line in changes.read_text(encoding="utf-8").splitlines()]
    assert {line["decision_id"] for line in lines} == {ids[1], ids[2]}


def test_history_of_a_time_is_replayed(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """From one instant on, before another."""
    ids = decide(place, trees_package, *toys.applications(3))
    times = [run("decisions", "show", i, "--json").json()["time"][:-1] for i in ids]

    def number(*options: str) -> int:
        told: int = run("replay", "--all", "--json", *options).json()["records"]
        return told

    assert number("--since", times[1]) == 2
    assert number("--until", times[1]) == 1
    assert number("--since", times[1], "--until", times[2]) == 1
    assert number("--since", "2100-01-01") == 0


def test_a_candidate_policy_names_exactly_what_it_would_change(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """As the policy itself says of each PD; that decisions change is the answer, and no failure."""
    applications = toys.applications(60)
    ids = decide(place, trees_package, *applications)
    policy = documents.read(Policy, milder(place))
    pds = [
        decision.probability_of_default for decision in scoring.decide(trees_package, applications)
    ]
    moved, swapped = set(), set()
    for record_id, pd, application in zip(ids, pds, applications, strict=True):
        before = trees_package.policy.decide(pd, application)
        after = policy.decide(pd, application)
        if before != after:
            moved.add(record_id)
        if before.decision != after.decision:
            swapped.add(record_id)
    changes = place.folder / "changes.jsonl"
    against = ("replay", "--all", "--policy", str(milder(place)))

    told = run(*against, "--json", "--changes", str(changes))

    assert told.code == 0
    lines = [json.loads(line) for line in changes.read_text(encoding="utf-8").splitlines()]
    assert {line["decision_id"] for line in lines} == moved
    assert {line["verdict"] for line in lines} == {"POLICY_CHANGED"}
    result = told.json()
    assert result["verdicts"]["POLICY_CHANGED"] == len(moved) > len(swapped) > 1
    assert {change["decision_id"] for change in result["changed"]} == swapped
    assert result["newly"] == {"APPROVE": len(swapped), "REVIEW": 0, "DECLINE": 0}
    assert result["candidate"]["policy_version"].startswith("2.1.0+")
    text = run(*against, "--limit", "1").out
    assert f"POLICY_CHANGED: {len(moved)}" in text
    assert re.search(rf"^ *REVIEW +{len(swapped)} ", text, re.MULTILINE)
    assert sum(record_id in text for record_id in ids) == 1
    assert len(run(*against, "--json", "--limit", "0").json()["changed"]) == 0


def test_a_candidate_model_brings_its_policy_along(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """For all of history, and for one decision, which is no match then."""
    ids = decide(place, trees_package, toys.RISKY, *toys.applications(5))

    told = run("replay", "--all", "--model", place.linear, "--json")
    assert told.code == 0
    assert told.json()["verdicts"]["MODEL_CHANGED"] == 6
    assert told.json()["candidate"]["model_version"] == place.linear
    assert told.json()["candidate"]["policy_version"].startswith("2.1.0+")
    one = run("replay", ids[0], "--model", place.linear)
    assert one.code == 5
    assert one.out.startswith("MODEL_CHANGED")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("bands: no", "version"),
        (toys.POLICY.replace("bicycle-leases", "boat-leases"), "boat-leases"),
        (toys.POLICY.replace("field: price", "field: prize"), "not in the schema"),
        (toys.POLICY.replace("PRICE_ABOVE_LIMIT", "UNHEARD_OF"), "UNHEARD_OF"),
    ],
)
def test_a_candidate_policy_that_cannot_be_one_is_refused(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage, text: str, told: str
) -> None:
    """Before anything is replayed, in one line."""
    decide(place, trees_package, toys.RISKY)
    file = place.folder / "candidate.yaml"
    file.write_text(text, encoding="utf-8")

    refused(run("replay", "--all", "--policy", str(file)), 1, told)


# Erasure and retention


def test_a_person_is_erased_once_it_is_said_twice(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Without --yes nothing is done; afterwards the application is gone and the decision there."""
    risky, safe = decide(place, trees_package, toys.RISKY, toys.SAFE)
    command = ("decisions", "erase", risky, "--reason", "asked for")

    looked = run(*command)
    assert (looked.code, looked.err) == (0, "nothing is erased yet: --yes does it\n")
    assert re.search(rf"{risky} +decision +1 record *\n", looked.out)
    assert run("decisions", "show", risky, "--json").json()["withheld"] is None
    assert listed(run, "--kind", "erasure") == []

    done = run(*command, "--yes", "--json").json()
    assert (done["erased"], done["files_overwritten"]) == (True, True)
    assert done["records"] == [
        {"id": risky, "kind": "decision", "state": "readable", "records": [risky]}
    ]
    shown = run("decisions", "show", risky, "--json").json()
    assert (shown["personal"], shown["withheld"], shown["decision"]) == (None, "erased", "DECLINE")
    assert run("decisions", "show", safe, "--json").json()["personal"] == {"input": toys.SAFE}
    assert "NOT_REPRODUCIBLE" in run("replay", risky).out
    (erasure,) = listed(run, "--kind", "erasure")
    assert run("decisions", "show", erasure, "--json").json()["about"] == risky

    again = run(*command, "--yes")
    assert again.code == 0
    assert re.search(rf"{risky} +decision +nothing: erased before *\n", again.out)
    assert listed(run, "--kind", "erasure") == [erasure]


def test_ids_to_erase_may_come_in_a_file(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """One a line; a mistake in it stops all."""
    ids = decide(place, trees_package, toys.RISKY, {"age": 5})
    file = place.folder / "ids"
    file.write_text("\n".join(["", *ids, "", "0193"]), encoding="ascii")
    command = ("decisions", "erase", "--ids-file", str(file), "--reason", "asked for", "--yes")
    refused(run(*command), 3, "no record has the id 0193; nothing was erased")
    assert run("decisions", "show", ids[0], "--json").json()["withheld"] is None

    file.write_text("\n".join(ids), encoding="ascii")
    assert "1 record" in run(*command).out
    assert [run("decisions", "show", i, "--json").json()["withheld"] for i in ids] == ["erased"] * 2
    file.write_bytes(b"\xff")
    refused(run(*command), 1, "one a line")
    refused(run("decisions", "erase", "--ids-file", "/nowhere/ids", "--reason", "x"), 3, "/nowhere")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("--reason", "x"), "give the ID"), (("0193", "--reason", " "), "--reason is empty")],
)
def test_an_erasure_of_nothing_or_for_nothing_is_wrong_usage(
    run: Callable[..., Outcome], arguments: tuple[str, ...], told: str
) -> None:
    """Before any database is opened."""
    outcome = run("decisions", "erase", *arguments)

    assert outcome.code == 2
    assert told in " ".join(outcome.err.split())


def test_retention_reports_before_it_takes(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """By portfolio and kind; and takes only what is older than 25 months."""
    (young,) = decide(place, trees_package, toys.SAFE)
    long_ago = int((datetime.now(UTC) - timedelta(days=31 * 26)).timestamp() * 1e6)
    aged = [
        Record(
            id=new_id(),
            kind="decision",
            time=long_ago + i,
            portfolio=toys.NAME,
            request_id="request",
            model_version=None,
            policy_version=None,
            decision="APPROVE",
            status=200,
            body={},
        )
        for i in range(2)
    ]
    with closing(open_log(Settings())) as log:
        log.append(aged).result()
    hold = place.folder / "hold"
    hold.write_text(aged[0].id, encoding="ascii")

    looked = run("retention")
    assert (looked.code, looked.err) == (0, "nothing is taken yet: --delete --yes does it\n")
    assert looked.out.startswith("older than 25 months, so before 20")
    assert re.search(rf"{toys.NAME} +decision +2 +due ", looked.out)
    for half in (("--delete",), ("--yes",)):
        assert run("retention", *half, "--json").json()["deleted"] is False
    assert run("decisions", "show", aged[1].id).code == 0

    done = run("retention", "--delete", "--yes", "--hold", str(hold), "--json").json()
    assert (done["months"], done["taken"], done["deleted"]) == (25, {"decision": 1}, True)
    assert [(row["state"], row["number"]) for row in done["records"]] == [("due", 1), ("held", 1)]
    refused(run("decisions", "show", aged[1].id), 3, "was taken by retention")
    assert listed(run) == [young, aged[0].id]
    last = run("retention", "--delete", "--yes")
    assert last.out.endswith("records taken: 1\n")
    assert listed(run) == [young]


def test_the_period_is_the_settings_or_the_regimes(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A regime without a number has the usual one."""
    decide(place, trees_package, toys.SAFE)
    monkeypatch.setenv("CREDIT_RISK_REGIME", "eu-consumer-credit")
    assert run("retention", "--json").json()["months"] == 25
    monkeypatch.setenv("CREDIT_RISK_RETENTION_MONTHS", "72")
    assert run("retention", "--json").json()["months"] == 72


# Keys and tables


def test_new_keys_are_those_that_settings_take(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Printed as the files hold them; each is another one."""
    printed = {kind: run("keys", kind).out for kind in ("encryption", "signing")}
    for kind, variable in (("encryption", "ENCRYPTION_KEYS_FILE"), ("signing", "SIGNING_KEY_FILE")):
        file = place.folder / kind
        file.write_text(printed[kind], encoding="ascii")
        monkeypatch.setenv(f"CREDIT_RISK_{variable}", str(file))
    monkeypatch.delenv("CREDIT_RISK_ENCRYPTION_KEYS")
    settings = Settings()

    assert keys.sealing(settings) is not None
    assert keys.signing_key(settings) is not None
    assert run("keys", "encryption", "--json").json()["encryption_key"] != printed["encryption"]
    assert "PRIVATE KEY" in run("keys", "signing", "--json").json()["signing_key"]
    assert not place.state.exists()


def test_an_encryption_key_is_replaced(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then the old one is needed no more; before, it is missed."""
    ids = decide(place, trees_package, toys.RISKY, toys.SAFE)
    new = new_encryption_key().strip()

    def with_keys(*given: str) -> None:
        monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", " ".join(given))

    with_keys(new)
    missed = run("keys", "rewrap")
    assert missed.code == 1
    assert "2 records are sealed with keys that are not given" in missed.err
    with_keys(new, KEY)
    assert run("keys", "rewrap", "--json").json() == {"rewrapped": 2, "already": 0, "unknown": 0}
    with_keys(new)
    assert run("keys", "rewrap").out == "0 data keys wrapped with the first key; 2 were before\n"
    shown = run("decisions", "show", ids[0], "--json").json()
    assert shown["personal"] == {"input": toys.RISKY}


def test_the_database_is_told_and_upgraded(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """One that is up to date is left as it is."""
    decide(place, trees_package, toys.RISKY)
    url = f"sqlite:///{place.state / 'records.db'}"

    assert run("database", "status").out == f"{url}\nrevision {REVISION}; up to date\n"
    assert run("database", "status", "--json").json() == {
        "url": url,
        "revision": REVISION,
        "needed": REVISION,
    }
    assert run("database", "upgrade").out == f"revision {REVISION}: nothing to do\n"
    assert run("database", "upgrade", "--json").json() == {"before": REVISION, "after": REVISION}


def test_an_empty_database_is_upgraded(run: Callable[..., Outcome], place: Place) -> None:
    """Somebody made it, and nothing in it yet."""
    place.state.mkdir()
    (place.state / "records.db").touch()

    assert f"no tables yet; this version needs {REVISION}" in run("database", "status").out
    assert run("database", "upgrade").out == f"revision {REVISION} (before: none)\n"
    assert "up to date" in run("database", "status").out


# Settings


def is_number(value: object) -> bool:
    """Whether JSON calls it a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def test_every_setting_is_shown_with_a_variable_that_sets_it(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable shown is one that works, and it wins over the short name."""
    lines = run("settings").out.splitlines()
    before = run("settings", "--json").json()
    other: dict[str, object] = {
        # Any other number is as good; of words and paths there are rules.
        **{n: v / 2 if isinstance(v, float) else v + 1 for n, v in before.items() if is_number(v)},
        "portfolio": "credit-cards",
        "host": "0.0.0.0",  # noqa: S104 - nothing listens
        "state_dir": "/srv/state",
        "model_version": "0123456789ab",
        "portfolios_dir": "/srv/portfolios",
        "packages_dir": "/srv/packages",
        "regimes_dir": "/srv/regimes",
        "regime": "eu-consumer-credit",
        "retention_months": 72,
        "database_url": "sqlite:////srv/records.db",
        "body_bytes_max": 2_048,
        "drain_seconds": 15.0,
        "log_level": "DEBUG",
        "encryption_keys": "made-up",
        "encryption_keys_file": "/srv/encryption-keys",
        "signing_key": "made-up",
        "signing_key_file": "/srv/signing-key",
    }
    assert set(before) == set(other) == set(Settings.model_fields)
    for name, value in other.items():
        variable = f"{PREFIX}{name.upper()}"
        (line,) = [line for line in lines if f"{variable}=" in line]
        unset = before[name] is None or name == "encryption_keys"  # set, and told to nobody
        assert line == (f"# {variable}=" if unset else f"{variable}={before[name]}")
        assert before[name] != value
        monkeypatch.setenv(variable, str(value))

    secrets = dict.fromkeys(("encryption_keys", "signing_key"), "**********")
    assert run("settings", "--json").json() == other | secrets


def test_the_settings_shown_are_a_file_that_a_shell_can_read(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved, it gives the same settings again, whatever is in them."""
    monkeypatch.setenv("STATE_DIR", "some $(where) else's # 100%")
    shown = run("settings")
    file = place.folder / "settings.env"
    file.write_text(shown.out, encoding="utf-8")

    script = '. "$1"; printf %s "$CREDIT_RISK_STATE_DIR"'
    again = subprocess.run(  # noqa: S603 - a script written here
        ["/bin/sh", "-c", script, "sh", str(file)], capture_output=True, text=True, check=True
    ).stdout

    assert again == "some $(where) else's # 100%"
    for field in Settings.model_fields.values():
        assert f"# {field.description}\n" in shown.out


def test_the_short_name_of_the_port_works_and_the_long_one_wins(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A platform's PORT does not overrule the one meant for us."""
    monkeypatch.setenv("PORT", "1111")
    assert run("settings", "--json").json()["port"] == 1111

    monkeypatch.setenv("CREDIT_RISK_PORT", "2222")
    assert run("settings", "--json").json()["port"] == 2222
    monkeypatch.setenv("PORT", "not even a number")
    assert run("settings", "--json").json()["port"] == 2222


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("CREDIT_RISK_PORT", "65536"),
        ("WORKERS", "0"),
        ("CREDIT_RISK_WORKERS", "all"),
        ("PORTFOLIO", "../etc"),
        ("CREDIT_RISK_PORTFOLIO", "Personal Loans"),
        ("CREDIT_RISK_LOG_LEVEL", "LOUD"),
        ("CREDIT_RISK_BATCH_ROWS_MAX", "10001"),
        ("CREDIT_RISK_BODY_BYTES_MAX", "1"),
        ("CREDIT_RISK_ACTIVATION_POLL_SECONDS", "0"),
        ("credit_risk_activation_poll_seconds", "never"),
        ("CREDIT_RISK_DATABASE_URL", "nonsense"),
    ],
)
@pytest.mark.parametrize(
    "command", [("settings",), ("serve",), ("models", "list"), ("decisions", "list")]
)
def test_a_wrong_setting_ends_with_2_and_the_name_of_its_variable(
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    command: tuple[str, ...],
) -> None:
    """The one that was set, so that it can be found and mended."""
    monkeypatch.setenv(variable, value)

    refused(run(*command), 2, f"error: setting {variable.upper()}: ")


def test_of_two_names_the_one_that_counts_is_told(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both set, the long one is in force, so it is the wrong one."""
    monkeypatch.setenv("PORT", "3000")
    monkeypatch.setenv("CREDIT_RISK_PORT", "0")

    refused(run("settings"), 2, "error: setting CREDIT_RISK_PORT: ")


def test_every_wrong_setting_is_told_in_a_line_of_its_own(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody mends one only to be told of the next."""
    monkeypatch.setenv("PORT", "x")
    monkeypatch.setenv("CREDIT_RISK_LOG_LEVEL", "x")

    outcome = run("settings")

    assert outcome.code == 2
    first, second = outcome.err.splitlines()
    assert first.startswith("error: setting PORT: ")
    assert second.startswith("error: setting CREDIT_RISK_LOG_LEVEL: ")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://clerk:hunter2@db/records", "postgresql://clerk:***@db/records"),
        ("postgresql://clerk:hun:ter2@db/records", "postgresql://clerk:***@db/records"),
        ("postgresql://clerk:hun@ter2@db/records", "postgresql://clerk:***@db/records"),
        ("postgresql://db/records?password=hunter2", "postgresql://db/records?password=***"),
        ("sqlite:////srv/a@b/records.db", "sqlite:////srv/a@b/records.db"),
    ],
)
def test_a_databases_password_is_never_shown(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    """Settings are pasted into tickets."""
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", url)

    assert run("settings", "--json").json()["database_url"] == shown
    assert shown in run("settings").out
    told = run("decisions", "list").err
    assert "ter2" not in told


def test_a_mistake_of_ours_is_not_blamed_on_a_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another document that is not valid is another error."""

    class Document(BaseModel):
        port: int

    monkeypatch.setattr(cli, "app", lambda: Document.model_validate({"port": "x"}))

    with pytest.raises(ValidationError, match="Document"):
        cli.main()


# Places that fail


@pytest.mark.parametrize("url", ["unknown://db/records", "sqlite://"])
def test_a_database_that_cannot_be_opened_ends_with_4(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """For everything that reads or writes records."""
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", url)
    monkeypatch.setenv("CREDIT_RISK_ENCRYPTION_KEYS", new_encryption_key())

    for command in (
        ("decisions", "list"),
        ("decisions", "show", "0193"),
        ("models", "list"),
        ("models", "rollback"),
        ("serve",),
    ):
        refused(run(*command), 4)


def test_a_database_that_cannot_be_made_ends_with_4(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what would make it; who only reads finds no records there."""
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", "sqlite:////dev/null/records.db")

    refused(run("models", "rollback"), 4)
    refused(run("serve"), 4)
    refused(run("decisions", "list"), 3, "no records yet: /dev/null/records.db does not exist")
    assert run("models", "list").code == 0


def test_a_file_that_is_no_database_ends_with_4(run: Callable[..., Outcome], place: Place) -> None:
    """And is left as it is."""
    place.state.mkdir()
    file = place.state / "records.db"
    file.write_bytes(b"These are notes of mine, and no records at all.\n" * 100)

    refused(run("decisions", "list"), 4, "not a database")
    assert file.read_bytes().startswith(b"These are notes")


def test_a_database_of_somebody_elses_ends_with_4(
    run: Callable[..., Outcome], place: Place
) -> None:
    """Its table of the same name has other columns."""
    place.state.mkdir()
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("CREATE TABLE records (title TEXT, artist TEXT)")

    assert run("decisions", "list").code == 4


def test_a_state_directory_that_cannot_be_made_ends_with_1(
    run: Callable[..., Outcome], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line that names the place."""
    (place.folder / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("STATE_DIR", str(place.folder / "file" / "state"))

    refused(run("models", "activate", place.trees), 1, "Not a directory", str(place.folder))
    refused(run("serve"), 1, "Not a directory", str(place.folder))


# Serving


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
    """What would have replaced this process: command and environment."""
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execve(path: str, command: list[str], environment: dict[str, str]) -> None:
        assert path == command[0] == sys.executable
        calls.append((command, environment))

    monkeypatch.setattr(os, "execve", execve)
    return calls


def test_serving_hands_over_to_bentoml(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With host, port and times, and a home of BentoML's under the state directory."""
    monkeypatch.setenv("PORT", "4321")
    monkeypatch.setenv("CREDIT_RISK_KEEP_ALIVE_SECONDS", "20")
    monkeypatch.setenv("CREDIT_RISK_SHUTDOWN_SECONDS", "45")
    monkeypatch.setenv("CREDIT_RISK_WORKERS", "1")
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("STATE_DIR", "state")
    monkeypatch.setenv("CREDIT_RISK_PACKAGES_DIR", "shipped")
    monkeypatch.setenv("CREDIT_RISK_PORTFOLIOS_DIR", "portfolios")
    monkeypatch.setenv("CREDIT_RISK_DATABASE_URL", "sqlite:///my.db")

    said = run("serve").err

    assert said == (
        f"serving {toys.NAME} {place.trees} on http://127.0.0.1:4321 with 1 worker, "
        f"state under {place.state}\n"
    )
    ((command, environment),) = executed
    assert command[1:5] == ["-m", "bentoml", "serve", "service:CreditRiskServer"]
    options = dict(zip(command[5::2], command[6::2], strict=True))
    assert options == {
        "--working-dir": str(ROOT),
        "--host": "127.0.0.1",
        "--port": "4321",
        "--timeout-keep-alive": "20",
        "--timeout-graceful-shutdown": "45",
    }
    assert environment["CREDIT_RISK_STATE_DIR"] == str(place.state)
    assert environment["BENTOML_HOME"] == str(place.state / "bentoml")
    assert environment["BENTOML_DO_NOT_TRACK"] == "True"
    assert environment["CREDIT_RISK_WORKERS"] == "1"
    assert environment["CREDIT_RISK_PACKAGES_DIR"] == str(place.folder / "shipped")
    assert Path(environment["CREDIT_RISK_REGIMES_DIR"]).is_absolute()
    assert environment["CREDIT_RISK_PORTFOLIOS_DIR"] == str(place.folder / "portfolios")
    assert environment["CREDIT_RISK_DATABASE_URL"] == f"sqlite:///{place.folder}/my.db"


def test_a_regime_that_cannot_be_gone_by_is_one_line_and_not_a_server(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not there, or wrong."""
    monkeypatch.setenv("CREDIT_RISK_REGIMES_DIR", str(place.folder))
    monkeypatch.setenv("CREDIT_RISK_REGIME", "bicycle-law")
    refused(run("serve"), 3, "no regime 'bicycle-law'")

    (place.folder / "bicycle-law.yaml").write_text("id: bicycle-law\n", encoding="utf-8")
    refused(run("serve"), 1, "bicycle-law.yaml: version: Field required")
    assert executed == []


def test_a_package_that_cannot_serve_is_one_line_and_not_a_server(
    run: Callable[..., Outcome],
    place: Place,
    executed: list[tuple[list[str], dict[str, str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Altered, not installed, or none at all: told before a worker starts."""
    run("models", "activate", place.trees)
    place.alter(place.trees, "trees.npz")
    refused(run("serve"), 1, "trees.npz was altered")

    monkeypatch.setenv("MODEL_VERSION", "0123456789ab")
    refused(run("serve"), 3, "no package 0123456789ab")
    monkeypatch.delenv("MODEL_VERSION")

    (place.folder / "shipped" / toys.NAME / DEFAULT).unlink()
    monkeypatch.setenv("STATE_DIR", str(place.folder / "another"))
    refused(run("serve"), 3, f"portfolio {toys.NAME} ships no package")
    assert executed == []


# Evaluating and training


@pytest.fixture
def data(place: Place) -> Path:
    """A labelled file, and how the toy portfolio reads it."""
    training = place.folder / "portfolios" / toys.NAME / "training.yaml"
    training.write_text(leases.TRAINING, encoding="utf-8")
    rows = leases.labelled(200)
    rows.loc[0, "age"] = 5
    rows.to_csv(place.folder / "leases.csv", index=False)
    return place.folder / "leases.csv"


def test_a_labelled_file_is_evaluated_with_the_active_package(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """As JSON and as a table; a row outside the schema is counted with its reason."""
    figures = run("evaluate", "--data", str(data), "--json").json()

    assert figures["model_version"] == place.trees
    assert (figures["rows_read"], figures["rows_scored"]) == (200, 199)
    ((reason, rows),) = figures["rows_not_scored"].items()
    assert ("age" in reason, rows) == (True, 1)
    assert 0.5 < figures["roc_auc"] <= 1.0
    table = run("evaluate", "--data", str(data)).out
    assert f"{toys.NAME} {place.trees}: 199 of 200 rows scored" in table
    assert f"not scored: 1 rows, {reason}" in table
    assert f"{figures['roc_auc']:.3f}" in table


def test_figures_to_be_wary_of_come_with_a_warning(run: Callable[..., Outcome], data: Path) -> None:
    """Of a model of so few rows that its PDs are far from true, and of the rows it learned from."""
    trained = run("train", "--data", str(data), "--estimator", "logistic-regression", "--json")
    command = ("evaluate", "--model-version", trained.json()["version"], "--data")
    rows = data.read_text(encoding="utf-8").splitlines(keepends=True)
    (data.parent / "others.csv").write_text("".join(rows[:-1]), encoding="utf-8")

    assert "warning: the expected calibration error is" in trained.err
    assert run(*command, str(data), "--json").json()["same_file_as_training"] is True
    assert "trained on this very file" in run(*command, str(data)).out
    assert "trained on this very file" not in run(*command, str(data.parent / "others.csv")).out


def test_another_package_is_evaluated_when_it_is_named(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """To compare before activating; one that is not installed is not found."""
    command = ("evaluate", "--data", str(data), "--json", "--model-version")

    assert run(*command, place.linear).json()["model_version"] == place.linear
    refused(run(*command, "0123456789ab"), 3, "no package 0123456789ab")


def test_a_file_that_cannot_be_evaluated_is_refused(
    run: Callable[..., Outcome], place: Place, data: Path
) -> None:
    """It lacks a column, or nothing says how to read it."""
    data.write_text("age,late\n34,0\n", encoding="utf-8")
    refused(run("evaluate", "--data", str(data)), 1, str(data))
    (place.folder / "portfolios" / toys.NAME / "training.yaml").unlink()
    refused(run("evaluate", "--data", str(data)), 1, "training.yaml")


@pytest.mark.parametrize("command", ["train", "package"])
def test_what_cannot_be_trained_or_packaged_is_refused(
    run: Callable[..., Outcome], data: Path, command: str
) -> None:
    """With 1 and one line, after the step that it happened in; nothing is installed."""
    data.write_text("age,late\n34,0\n", encoding="utf-8")
    arguments = ("train",) if command == "train" else ("package", str(data))

    outcome = run(*arguments, "--data", str(data))
    step, line = outcome.err.splitlines()
    assert (outcome.code, outcome.out) == (1, "")
    assert step.startswith("Reading")
    assert line.startswith(f"error: {data}")
    assert len(run("models", "list", "--json").json()) == 2


def leases_file(place: Place) -> Path:
    """Three leases, the second of nobody's age."""
    file = place.folder / "leases.csv"
    rows = [toys.SAFE, toys.RISKY | {"age": 7}, toys.RISKY]
    lines = [",".join(["lease", *toys.SAFE])]
    lines += [",".join([f"L{i}", *map(str, row.values())]) for i, row in enumerate(rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_score_decides_about_each_row_of_a_file(place: Place, run: Callable[..., Outcome]) -> None:
    """With the package that decides or the one named; the rows that cannot be are counted."""
    source, output = str(leases_file(place)), place.folder / "out.csv"

    done = run("score", source, str(output), "--keep", "lease", "--reasons")
    linear = run(
        "score", source, str(place.folder / "linear.csv"), "--model-version", place.linear, "--json"
    ).json()

    assert done.code == 0
    assert f"{toys.NAME} {place.trees}: 2 of 3 rows scored" in done.out
    assert "DECLINE: 1" in done.out
    assert "not scored: 1" in done.out
    rows = output.read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[1] for row in rows] == ['"lease"', '"L0"', '"L1"', '"L2"']
    assert "INCOME_INSUFFICIENT" in rows[3]
    assert (linear["model_version"], linear["scored"], linear["refused"]) == (place.linear, 2, 1)
    line = json.loads((place.folder / "out.csv.errors.jsonl").read_text(encoding="utf-8"))
    assert line == {
        "row": 1,
        "pointer": "/age",
        "detail": "Input should be greater than or equal to 18",
    }


def test_score_says_in_one_line_why_it_will_not(place: Place, run: Callable[..., Outcome]) -> None:
    """An output that exists, an unknown column under --strict, a package that is not there."""
    source, output = str(leases_file(place)), place.folder / "out.csv"
    output.touch()

    refused(run("score", source, str(output)), 1, "exists")
    refused(run("score", source, f"{output}.csv", "--strict"), 1, "unknown columns: lease")
    refused(run("score", source, f"{output}.csv", "--model-version", "0" * 12), 3, "0" * 12)


def test_score_without_a_row_scored_has_failed(place: Place, run: Callable[..., Outcome]) -> None:
    """Its output is there, and says why; a file without rows has nothing to fail of."""
    source = leases_file(place)
    header, _, second, _ = source.read_text(encoding="utf-8").splitlines()
    source.write_text(f"{header}\n{second}\n", encoding="utf-8")

    done = run("score", str(source), str(place.folder / "out.csv"), "--json")

    assert done.code == 1
    assert (done.json()["rows"], done.json()["scored"]) == (1, 0)
    assert "no row of" in done.err
    assert "out.csv.errors.jsonl" in done.err
    source.write_text(f"{header}\n", encoding="utf-8")
    assert run("score", str(source), str(place.folder / "none.csv")).code == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where the tests were started in the background, deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_score_that_is_stopped_says_how_it_goes_on(
    sent: signal.Signals,
    code: int,
    place: Place,
    run: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As Ctrl-C does; what stops a process otherwise is as before it."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(bulk, "score_file", lambda *_, **__: signal.raise_signal(sent))

    stopped = run("score", str(leases_file(place)), str(place.folder / "out.csv"))

    assert stopped.code == code
    assert "interrupted: the same command goes on where it was" in stopped.err
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_misspelt_setting_is_one_line(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong usage, and what was probably meant."""
    monkeypatch.setenv("CREDIT_RISK_WORKER", "3")

    refused = run("settings")

    assert refused.code == 2
    assert refused.err == (
        "error: CREDIT_RISK_WORKER is no setting: did you mean CREDIT_RISK_WORKERS?\n"
    )


# Audit


def test_a_log_is_verified_signed_exported_and_proven(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """From the first checkpoint to the proof of one record; each command also as JSON."""
    refused(run("audit", "verify"), 1, "no signing key is set", "--public-key")
    refused(run("audit", "public-key"), 1, "no signing key")
    refused(run("audit", "checkpoint"), 3, "no records yet")
    (first,) = decide(place, trees_package, toys.SAFE)
    anchor, key, proof = (place.folder / name for name in ("anchor.json", "key.pem", "proof.json"))

    assert run("audit", "checkpoint", "--export", str(anchor)).out == (
        "checkpoint 1: records 1 to 1\n"
    )
    key.write_text(run("audit", "public-key").out, encoding="utf-8")
    decide(place, trees_package, toys.RISKY)
    told = run("audit", "verify", "--public-key", str(key), "--anchor", str(anchor), "--open")
    assert told.code == 0
    assert "2 records, 1 checkpoints; whole" in told.out
    assert "the last 1 records" in told.out
    assert "opened: 2" in told.out
    assert "note:" not in told.err
    assert "weaker" not in told.err

    assert run("audit", "proof", first, "--out", str(proof)).out.startswith(f"{proof}: The record")
    assert json.loads(proof.read_text(encoding="utf-8")) == run("audit", "proof", first).json()
    assert (
        run("audit", "checkpoint", "--json").json()["key_id"]
        == (run("audit", "public-key", "--json").json()["key_id"])
    )
    assert [json.loads(c["statement"])["last"] for c in run(*LIST, "--json").json()] == [2, 1]
    assert run(*LIST).out.count("\n") == 3
    own = run("audit", "verify", "--json")
    assert own.json()["whole"] is True
    assert "the server's own key" in own.json()["notes"][0]
    refused(run("audit", "proof", "x"), 3, "no record has such an id")


LIST = ("audit", "checkpoints")


def test_a_log_that_is_not_whole_ends_with_its_own_code(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """And names the record, in text and as JSON."""
    first, second = decide(place, trees_package, toys.SAFE, toys.RISKY)
    run("audit", "checkpoint")
    with closing(sqlite3.connect(place.state / "records.db")) as connection:
        connection.execute("UPDATE records SET status = 201 WHERE sequence = 2")
        connection.execute("DELETE FROM records WHERE id = ?", (first,))
        connection.commit()
    told = run("audit", "verify")
    assert told.code == cli.OTHERWISE
    assert f"changed: record 2 ({second})" in told.out
    assert "removed: record 1: " in told.out
    assert "NOT whole: 3 things are not as written" in told.out
    found = run("audit", "verify", "--json")
    assert found.code == cli.OTHERWISE
    assert [finding["kind"] for finding in found.json()["findings"]] == [
        *("changed", "removed", "rewritten")
    ]


def test_a_database_that_is_none_is_told_in_one_line(
    run: Callable[..., Outcome], place: Place, trees_package: ModelPackage
) -> None:
    """Like a key or an anchor that is none."""
    decide(place, trees_package, toys.SAFE)
    run("audit", "checkpoint")
    other = place.folder / "other"
    other.write_bytes(b"\xff\xfe")
    for option in ("--public-key", "--anchor"):
        refused(run("audit", "verify", option, str(other)), 1, "is not text")
        refused(run("audit", "verify", option, "nowhere"), 3, "nowhere does not exist")
    other.write_text("none", encoding="utf-8")
    refused(run("audit", "verify", "--public-key", str(other)), 1, "not a public key")
    refused(run("audit", "verify", "--anchor", str(other)), 1, "not what was exported")
    (place.state / "records.db").write_bytes(b"x" * 9_000)
    refused(run("audit", "verify"), 4, "not a database")


def test_sealed_data_are_opened_only_with_keys(
    run: Callable[..., Outcome],
    place: Place,
    trees_package: ModelPackage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without any there is nothing to open with."""
    decide(place, trees_package, toys.SAFE)
    run("audit", "checkpoint")
    monkeypatch.delenv("CREDIT_RISK_ENCRYPTION_KEYS")
    refused(run("audit", "verify", "--open"), 1, "no encryption keys are set")
