from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from monitoring import charts
from tests.monitoring import monitored
from tests.monitoring.monitored import GROUPS

if TYPE_CHECKING:
    from markupsafe import Markup


def drawn(chart: Markup) -> ET.Element:
    """A chart as XML."""
    return ET.fromstring(chart)  # noqa: S314 - our own


def of_kind(chart: Markup, kind: str) -> list[ET.Element]:
    """The shapes of a class, or of it and others."""
    return [shape for shape in drawn(chart).iter() if kind in (shape.get("class") or "").split()]


def said(shape: ET.Element) -> str:
    """What a shape says to who points at it."""
    return shape.findtext("title") or ""


@pytest.mark.parametrize(
    ("psi", "of"),
    [
        (0.0, "below 0.1"),
        (0.0999, "below 0.1"),
        (0.1, "0.1 to 0.25"),
        (0.25, "0.25 to 0.5"),
        (0.9, "0.5 to 1"),
        (1.0, "1 or more"),
        (9.0, "1 or more"),
    ],
)
def test_colours_are_parted_where_verdicts_are(psi: float, of: str) -> None:
    """And twice beyond; each is told in words."""
    assert charts.HEAT[charts.heat(psi)] == of


@pytest.fixture(scope="module")
def heat() -> Markup:
    """The heat map of the toy package."""
    known = monitored.everything()
    assert known.window is not None
    order = [found.field for found in charts.compared(known.window)]
    return charts.heat_map(known.days, order, known.titles)


def test_the_heat_map_has_a_cell_for_each_field_and_day_that_was_compared(heat: Markup) -> None:
    """Under a bar for each day with decisions; a day with too few applicants has no colour."""
    fields = len(monitored.reference().compare(monitored.reference().empty).fields) + 1

    assert len(of_kind(heat, "volume")) == 7
    assert len(of_kind(heat, "cell")) == 5 * fields
    assert len(of_kind(heat, "few")) == fields
    assert all("too-few" in said(cell) for cell in of_kind(heat, "few"))


def test_a_day_of_a_few_has_cells_though_nothing_is_known_of_its_fields() -> None:
    """As it is on record."""
    known = monitored.everything()
    few = known.days[-1].drift
    assert few is not None
    day = known.days[-1]._replace(drift=few.model_copy(update={"fields": (), "score": None}))

    heat = charts.heat_map([*known.days[:-1], day], ["income", "age"], known.titles)
    assert [said(cell) for cell in of_kind(heat, "few")] == [
        f"{day.day}, {name}: 20 applicants, too-few" for name in ("income", "age")
    ]


def test_weeks_are_side_by_side_and_called_weeks() -> None:
    """Where each is of seven days."""
    known = monitored.everything()
    weeks = [
        day._replace(day=known.days[0].day + timedelta(days=7 * place))
        for place, day in enumerate(known.days[:3])
    ]

    heat = charts.heat_map(weeks, ["income"], known.titles, weekly=True)
    places = [float(bar.get("x") or "nan") for bar in of_kind(heat, "volume")]
    assert places[1] - places[0] == places[2] - places[1] <= 34
    assert "decisions a week" in heat
    assert "decisions a day" not in heat
    assert said(of_kind(heat, "cell")[1]).startswith(f"week from {weeks[1].day}, income: PSI")


def test_the_heat_map_glows_where_a_field_drifted_and_nowhere_else(heat: Markup) -> None:
    """From the fourth day on, in the income and in what follows from it."""
    calm = {said(cell).split(": ")[0] for cell in of_kind(heat, "calm")}
    glowing = {
        said(cell).split(": ")[0] for kind in [*charts.HEAT][2:] for cell in of_kind(heat, kind)
    }

    assert {"2026-11-05, income", "2026-11-06, income"} <= glowing
    assert {f"2026-11-0{day}, {name}" for day in (2, 3, 4) for name in ("income", "age")} <= calm


def test_days_keep_their_distance(heat: Markup) -> None:
    """One without decisions is a gap."""
    places = [float(bar.get("x") or "nan") for bar in of_kind(heat, "volume")]
    steps = [after - before for before, after in pairwise(places)]

    assert steps == pytest.approx([steps[0]] * 4 + [2 * steps[0], steps[0]], rel=1e-3)


def test_a_distribution_shows_each_bin_beside_the_reference() -> None:
    """What is common, and then what is more or less; empty bins of both are left out."""
    window = monitored.everything().window
    assert window is not None
    income = next(found for found in window.fields if found.field == "income")
    chart = charts.distribution(income)
    shown = [one for one in income.bins if one.share or one.reference]

    common = [float(box.get("width") or "nan") for box in of_kind(chart, "both")]
    more, less = of_kind(chart, "more"), of_kind(chart, "less")
    assert len(common) == len(shown) == len(more) + len(less)
    assert len(more) == sum(one.share > one.reference for one in shown)
    highest = max(max(one.share, one.reference) for one in shown)
    scale = 160 / highest
    assert common == pytest.approx(
        [max(scale * min(one.share, one.reference), 0.02) for one in shown], rel=1e-3
    )


def test_bins_of_the_score_are_in_percent() -> None:
    """And those of numbers are whole where they are large."""
    window = monitored.everything().window
    assert window is not None
    assert window.score is not None
    income = next(found for found in window.fields if found.field == "income")

    first = drawn(charts.distribution(window.score)).findtext("text")
    assert first is not None
    assert first.endswith(" %")
    assert "e+" not in charts.distribution(income)


def test_figures_are_dots_over_what_had_to_be_expected() -> None:
    """Six of each; without outcomes only what is expected, without either nothing."""
    found = monitored.outcomes()

    assert len(of_kind(charts.figures(found), "found")) == 6
    assert len(of_kind(charts.figures(found), "expected")) == 6
    early = found.model_copy(update={"figures": None})
    assert not of_kind(charts.figures(early), "found")
    assert len(of_kind(charts.figures(early), "expected")) == 6
    never = early.model_copy(update={"expected": None})
    assert not of_kind(charts.figures(never), "expected")


def test_a_decile_is_higher_the_more_defaulted() -> None:
    """Heights are default rates, on one scale with what was expected."""
    tiers = monitored.outcomes().deciles
    chart = charts.calibration(tiers, "decile of PD")

    heights = [float(dot.get("cy") or "nan") for dot in of_kind(chart, "found")]
    rates = [tier.default_rate or 0.0 for tier in tiers]
    assert len(heights) == len(of_kind(chart, "expected")) == len(tiers)
    # Lower down is less.
    order = sorted(range(len(rates)), key=rates.__getitem__)
    assert [heights[i] for i in order] == sorted(heights, reverse=True)


def test_vintages_that_are_not_final_are_pale() -> None:
    """Months without outcomes have a place and nothing in it."""
    found = monitored.outcomes()
    empty = found.vintages[0].model_copy(
        update={"month": "2025-02", "rows": 0}
        | dict.fromkeys(("mean_pd", "default_rate", "low", "high"))
    )
    chart = charts.vintages(found.model_copy(update={"vintages": (*found.vintages, empty)}))

    assert len(of_kind(chart, "found")) == 2
    assert [said(dot).split(":")[0] for dot in of_kind(chart, "unsure") if said(dot)] == ["2026-10"]
    assert "2025-02" in chart


def test_many_months_are_not_all_named() -> None:
    """Their names would run into each other."""
    found = monitored.outcomes()
    many = tuple(
        found.vintages[0].model_copy(update={"month": f"{2020 + i // 12}-{i % 12 + 1:02}"})
        for i in range(48)
    )
    chart = charts.vintages(found.model_copy(update={"vintages": many}))

    assert len(of_kind(chart, "found")) == 48
    assert len([shape for shape in drawn(chart) if "-" in (shape.text or "")]) == 16


def test_ratios_of_groups_are_told_with_their_intervals() -> None:
    """The reference has none, and a group that is too small neither."""
    chart = charts.ratios(monitored.groups())

    assert len(of_kind(chart, "found")) == 1
    assert len(of_kind(chart, "whisker")) == 1
    assert of_kind(chart, "concern")


def test_other_cut_offs_are_a_line_for_each_group() -> None:
    """And where the cut-off is now."""
    chart = charts.cut_offs(monitored.groups())

    (line,) = of_kind(chart, "series")
    assert charts.lines(monitored.groups()) == {GROUPS[1]: line.get("class")}
    assert len((line.get("points") or "").split()) == len(monitored.groups().cut_offs)
    assert len(of_kind(chart, "current")) == 1


def test_groups_beyond_the_colours_are_dashed() -> None:
    """So that no two of ten look alike."""
    found = monitored.groups()
    group = next(one for one in found.groups if one.ratio is not None)
    many = tuple(group.model_copy(update={"name": str(number)}) for number in range(10))

    looks = charts.lines(found.model_copy(update={"groups": many}))

    assert len({*looks.values()}) == 10
    assert looks["7"] == "series s2 again"


def test_nothing_is_drawn_of_a_group_without_any_ratio() -> None:
    """Nobody of the reference would be approved at any cut-off."""
    found = monitored.groups()
    without = tuple(one.model_copy(update={"ratios": {}}) for one in found.cut_offs)

    assert not of_kind(charts.cut_offs(found.model_copy(update={"cut_offs": without})), "series")


def test_days_of_a_year_fit() -> None:
    """Each is narrower, and not every one is named."""
    known = monitored.everything()
    first = known.days[0]
    year = [replace_day(first, number) for number in range(365)]

    chart = charts.heat_map(year, ["income"], {})

    last = max(float(cell.get("x") or "nan") for cell in of_kind(chart, "cell"))
    assert last < charts.WIDTH - charts.NAMES
    assert len([shape for shape in of_kind(chart, "faint") if "Nov" in (shape.text or "")]) < 8


def replace_day(day: charts.Day, later: int) -> charts.Day:
    """The same day so many days later."""
    return day._replace(day=day.day + timedelta(days=later))


def test_what_is_expected_is_told_in_words() -> None:
    """Before outcomes there is nothing to draw it beside."""
    estimate = monitored.everything().estimate
    assert estimate is not None

    rows = charts.estimated(estimate)

    assert rows[0] == ("AUC", f"{estimate.auc.value:.3f}", rows[0][2])
    assert len(rows) == 6
