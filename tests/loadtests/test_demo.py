"""The tour: what it reads back, what it makes of it, and how it ends."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from credit_risk import stability
from credit_risk.simulation import Change, Population, Scenario
from loadtests import demo, server
from loadtests.demo import Stage, counted, drift
from loadtests.server import Server, Unavailable
from tests import toys
from tests.answering import answering, decided

if TYPE_CHECKING:
    from collections.abc import Iterator

TOYS = Population(toys.schema(), toys.population())
POORER = Scenario(name="poorer", title="Poorer", changes=(Change(field="income", scale=0.5),))
METRICS = b"""\
# TYPE credit_feature_bin counter
credit_feature_bin_total{portfolio="p",model_version="1",feature="age",bin="01"} 4.0
credit_feature_bin_total{portfolio="p",model_version="2",feature="age",bin="01"} 3.0
credit_feature_bin_total{portfolio="p",model_version="1",feature="age",bin="missing"} 0.0
# TYPE credit_score_bin counter
credit_score_bin_total{portfolio="p",model_version="1",bin="10"} 2.0
# TYPE credit_decisions counter
credit_decisions_total{portfolio="p",decision="APPROVE"} 9.0
"""
KNOWN = Counter(
    {
        (bins.name, label): round(1_000 * share)
        for bins in (
            *stability.field_bins(TOYS.profile, TOYS.schema),
            stability.score_bins(TOYS.profile),
        )
        for label, share in zip(bins.labels, bins.shares, strict=True)
    }
)
"""A thousand applicants, exactly as they are known."""


def test_without_prometheus_the_server_is_asked() -> None:
    """Of all its versions together, and of nothing but the bins."""
    with answering(decided, METRICS) as asked:
        found = counted(Stage(Server(asked.url, toys.NAME, "0" * 12, None), Path(), None))

    assert found == {("age", "01"): 7, ("age", "missing"): 0, ("score", "10"): 2}


def test_drift_is_shown_where_there_is_more_than_before_and_than_by_chance() -> None:
    """Field by field, with what the scenario was to move."""
    poorer = KNOWN + Counter({("income", "01"): 300})

    found = {one.name: one for one in drift(TOYS, POORER, KNOWN, poorer)}

    assert list(found) == [*TOYS.schema.names, "score"]
    income = found.pop("income")
    assert income.before < income.chance < income.after
    assert (income.shown, income.moved) == (True, True)
    assert not any(one.shown or one.moved for one in found.values())


def test_drift_that_was_there_before_is_not_shown_by_the_scenario() -> None:
    """However much it is."""
    poorer = KNOWN + Counter({("income", "01"): 300})

    (income,) = [one for one in drift(TOYS, POORER, poorer, poorer) if one.name == "income"]

    assert income.after > income.chance
    assert not income.shown


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt(), 130), (Unavailable("it is not ready"), 3)]
)
def test_what_comes_between_ends_it_in_one_line_and_leaves_nothing(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C, or a server that does not start."""

    @contextmanager
    def started(folder: Path, *_: object, **__: object) -> Iterator[Server]:
        (folder / "state").mkdir()
        raise error
        yield

    monkeypatch.setattr(server, "started", started)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    done = CliRunner().invoke(demo.app, ["--seconds", "1"])

    assert done.exit_code == code
    assert "Traceback" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_what_is_kept_is_kept_where_nothing_is(tmp_path: Path) -> None:
    """An earlier tour, or anything else, is not written into."""
    done = CliRunner().invoke(demo.app, ["--keep", str(tmp_path)])

    assert done.exit_code == 2
    assert list(tmp_path.iterdir()) == []
