"""Regimes: the law as data, checked as any other data file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from credit_risk import documents, regimes
from credit_risk.errors import PortfolioInvalid, RegimeNotFound
from credit_risk.regimes import Regime

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "regimes"


def data() -> dict[str, Any]:
    """A regime of its own making, as a file would have it."""
    return {
        "id": "bicycle-law",
        "version": "1.0.0",
        "title": "The law of leased bicycles",
        "as_of": "2026-11-01",
        "caveat": "Nobody's advice.",
        "sources": [{"id": "act-1", "citation": "Bicycle Act 1", "title": "Notices"}],
        "notification": {
            "days": 10,
            "counted_from": "application",
            "words": "Within ten days.",
            "source": "act-1",
        },
        "record_retention": {"months": 12, "words": "A year.", "source": "act-1"},
        "most_reasons": {"number": 2, "words": "Two.", "source": "act-1"},
        "statements": [
            {"id": "who", "text": "{lender}, {address}; again {lender}", "source": "act-1"}
        ],
        "forbidden_wordings": ["internal standards"],
        "sections": [{"id": "all", "title": "All of it", "requires": ["policy", "decisions"]}],
        "other_regimes": [{"id": "tricycle-law", "title": "Of tricycles", "note": "Not here."}],
    }


def regime(**changed: object) -> Regime:
    """The made-up regime, with some of it replaced."""
    return documents.parse(Regime, yaml.safe_dump(data() | changed), "bicycle-law.yaml")


def test_the_shipped_regimes_load_under_their_names() -> None:
    """Each says what it rests on, as of when, and that it is no legal advice."""
    found = regimes.names(SHIPPED)

    assert found == ["eu-consumer-credit", "us-ecoa"]
    for name in found:
        loaded = regimes.load(SHIPPED, name)
        assert loaded.id == name
        assert "no legal advice" in loaded.caveat
        assert len(loaded.sha256) == 64


def test_regulation_b_is_what_it_says() -> None:
    """Thirty days from the application, records for 25 months, four reasons."""
    loaded = regimes.load(SHIPPED, "us-ecoa")

    assert (loaded.notification.days, loaded.notification.counted_from) == (30, "application")
    assert loaded.record_retention.months == 25
    assert loaded.most_reasons.number == 4
    assert loaded.forbidden_in("Failed to achieve a Qualifying  Score") == "qualifying score"
    named = {source.citation for source in loaded.sources}
    assert "12 CFR 1002.9" in named
    texts = {statement.id: statement for statement in loaded.statements}
    assert texts["ecoa"].placeholders == ["agency_name", "agency_address"]
    assert texts["consumer-report"].when is not None


def test_each_regime_names_the_others() -> None:
    """Whoever reads one learns which may apply too."""
    for name in regimes.names(SHIPPED):
        others = {other.id for other in regimes.load(SHIPPED, name).other_regimes}
        assert {"uk-gdpr", "us-co-sb26-189", "sr-26-2"} <= others


def test_placeholders_are_named_once_in_order() -> None:
    """The lender fills each of them."""
    assert regime().statements[0].placeholders == ["lender", "address"]


def test_the_digest_is_of_what_is_said_not_of_its_layout() -> None:
    """A comment changes nothing; a day does."""
    same = documents.parse(Regime, f"# a comment\n{yaml.safe_dump(data())}", "bicycle-law.yaml")

    assert same.sha256 == regime().sha256
    assert regime(as_of="2026-11-02").sha256 != regime().sha256


def test_wording_is_forbidden_in_whatever_case_and_spacing() -> None:
    """And nothing else is."""
    assert regime().forbidden_in("Our INTERNAL\n standards") == "internal standards"
    assert regime().forbidden_in("Length of employment") is None


def edited(edit: Callable[[dict[str, Any]], object]) -> str:
    """The made-up regime as text, after an edit."""
    document = data()
    edit(document)
    return yaml.safe_dump(document)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda d: d.pop("caveat"), "caveat: Field required"),
        (lambda d: d.update(more=1), "more: Extra inputs"),
        (lambda d: d.update(version="1"), "version: "),
        (lambda d: d.update(as_of="soon"), "as_of: "),
        (lambda d: d["notification"].update(days=0), "notification.days: "),
        (lambda d: d["notification"].update(counted_from="noon"), "notification.counted_from: "),
        (lambda d: d["notification"].update(source="act-2"), "notification: act-2 is not one"),
        (lambda d: d["statements"][0].update(source="act-2"), "statements: who: act-2 is not one"),
        (lambda d: d["statements"][0].update(text="{Lender Name}"), "statements.0: "),
        (lambda d: d["statements"][0].update(text="{lender!r}"), "statements.0: "),
        (lambda d: d["statements"][0].update(text="an {open brace"), "statements.0: "),
        (lambda d: d["sections"][0].update(requires=["luck"]), "sections.0.requires.0: "),
        (lambda d: d["sections"][0].update(requires=[]), "sections.0.requires: "),
        (lambda d: d["sections"].append(d["sections"][0]), "sections: ids are not unique"),
        (lambda d: d["sources"].append(d["sources"][0]), "sources: ids are not unique"),
    ],
)
def test_a_wrong_regime_is_refused_naming_file_and_place(
    edit: Callable[[dict[str, Any]], object], told: str
) -> None:
    """In the words of every other data file."""
    with pytest.raises(PortfolioInvalid) as caught:
        documents.parse(Regime, edited(edit), "bicycle-law.yaml")

    assert str(caught.value).startswith("bicycle-law.yaml: ")
    assert told in str(caught.value)


def test_a_regime_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    """And no path leads out of the folder."""
    (tmp_path / "bicycle-law.yaml").write_text(yaml.safe_dump(data()), encoding="utf-8")

    for name in ("tricycle-law", "../bicycle-law", ""):
        with pytest.raises(RegimeNotFound, match=r"there are: bicycle-law\)"):
            regimes.load(tmp_path, name)
    with pytest.raises(RegimeNotFound, match="there are: none"):
        regimes.load(tmp_path / "nowhere", "bicycle-law")


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    """It would be named by one and found by the other."""
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(data()), encoding="utf-8")

    with pytest.raises(PortfolioInvalid, match=r"other\.yaml: id: .* 'bicycle-law'"):
        regimes.load(tmp_path, "other")
