"""The model card: it says what it must, the same bytes each time, and nothing of any one row."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from credit_risk.package import ReferenceGroup
from credit_risk.policy import Rule
from credit_risk.schema import Schema
from credit_risk.training.card import CardFacts, render
from credit_risk.training.directions import Kept
from credit_risk.training.evaluation import evaluate
from tests import toys

if TYPE_CHECKING:
    from credit_risk.reasons import ReasonDictionary
    from credit_risk.training.evaluation import Floats, Labels

PLOTS = ("plots/roc.png", "plots/calibration.png", "plots/scores.png", "plots/ks.png")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SHA256 = "0f" * 32


def _hold_out(rows: int = 2_000) -> tuple[Labels, Floats]:
    generator = np.random.default_rng(7)
    pds = generator.beta(0.5, 2.0, rows)
    return (generator.random(rows) < pds).astype(np.int64), pds


def _facts() -> CardFacts:
    labels, pds = _hold_out()
    return CardFacts(
        schema=toys.schema(),
        policy=toys.policy(),
        policy_version="2.1.0+0123abcd",
        reasons=toys.reasons(),
        data={
            "name": "Leases of bicycles",
            "licence": "CC0 1.0",
            "source": "made up",
            "sha256": SHA256,
            "rows_read": 10_100,
            "rows_used": 10_000,
            "dropped": {"exact duplicate": 60, "age outside 18 to 100": 40},
            "mended": {"income outside its range, set to missing": 7},
        },
        estimator="xgboost",
        settings={
            "seed": 42,
            "hold_out": {"kind": "stratified", "share": 0.2, "column": None},
            "parameters": {"max_depth": 6, "columns": ["a", "b"]},
        },
        evaluation=evaluate(labels, pds, toys.policy()),
        labels=labels,
        pds=pds,
        reference=ReferenceGroup(
            name="all applicants", description="everyone who applied", rows=2_000, seed=5
        ),
        fidelity={
            "same_first_reason, share of declines": 0.96521,
            "declines compared": 1_210,
            "largest additivity error": "3.1e-13 log-odds",
        },
        kept={
            "age": Kept(share=0.125, largest=0.0321),
            **dict.fromkeys(("price", "years_employed", "history"), Kept(share=0.0, largest=0.0)),
        },
        libraries={"xgboost": "3.2.0", "numpy": "2.4.6"},
        notes={
            "Fairness": "Age only as the law allows.",
            "Limits": "Bicycles only.",
            "Intended use": "Leases of *one* bicycle.",
        },
    )


def _facts_of(labels: Labels, pds: Floats) -> CardFacts:
    evaluation = evaluate(labels, pds, toys.policy())
    return replace(_facts(), labels=labels, pds=pds, evaluation=evaluation)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """The card of the made-up portfolio."""
    return render(_facts())


@pytest.fixture(scope="module")
def text(files: dict[str, bytes]) -> str:
    """Its Markdown."""
    return files["card.md"].decode()


def _tables(markdown: str) -> list[list[list[str]]]:
    """The tables a Markdown reader sees: tables of rows of cells, as plain text."""
    tables: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and token.level >= 3 and tables:
            tables[-1][-1].append("".join(child.content for child in token.children or ()))
    return tables


def _table(markdown: str, first_header: str) -> list[list[str]]:
    return next(table for table in _tables(markdown) if table[0][0] == first_header)


def _headings(markdown: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)


def test_a_card_is_markdown_and_the_plots_it_shows(files: dict[str, bytes], text: str) -> None:
    """Every picture is embedded by its path beside the card, with words in its place."""
    assert set(files) == {"card.md", *PLOTS}
    pictures = re.findall(r"!\[(.+?)\]\((.+?)\)", text)
    assert {path for _, path in pictures} == set(PLOTS)
    assert all(len(alternative) > 20 for alternative, _ in pictures)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_a_small_png_that_says_nothing_of_when_or_by_what_it_was_made(
    name: str, files: dict[str, bytes]
) -> None:
    """Its chunks are the picture's alone: no text, no time; and it is under 60 kB."""
    content = files[name]

    assert content.startswith(PNG_SIGNATURE)
    assert 5_000 < len(content) < 60_000
    picture = Image.open(io.BytesIO(content))
    picture.load()
    assert picture.info == {}
    assert min(picture.size) >= 700
    assert b"tIME" not in content


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_has_both_ink_and_the_colours_of_its_curves(
    name: str, files: dict[str, bytes]
) -> None:
    """Squeezing the picture into a palette has lost neither black text nor the blue."""
    picture = np.asarray(Image.open(io.BytesIO(files[name])).convert("RGB"), dtype=np.int64)
    wanted = {"ink": (0x22, 0x22, 0x22), "blue": (0x00, 0x72, 0xB2)}
    if name != "plots/calibration.png":
        wanted["vermilion"] = (0xD5, 0x5E, 0x00)

    for colour in wanted.values():
        near = np.abs(picture - np.array(colour)).sum(axis=2) < 24
        assert near.sum() > 100


def test_the_same_facts_give_the_same_bytes(files: dict[str, bytes]) -> None:
    """Nothing of the time, the process or the reader's own plot settings gets in."""
    with mpl.rc_context({"figure.dpi": 50, "lines.linewidth": 9, "font.size": 30}):
        assert render(_facts()) == files


def test_other_outcomes_give_other_plots(files: dict[str, bytes]) -> None:
    """The plots are of the hold-out's rows, not of a fixed example."""
    labels, pds = _hold_out()

    others = render(_facts_of(labels, pds**2))

    assert all(others[name] != files[name] for name in PLOTS)


def test_drawing_leaves_the_readers_plot_settings_alone() -> None:
    """A card made in a notebook does not restyle the notebook."""
    before = dict(mpl.rcParams)

    render(_facts())

    assert dict(mpl.rcParams) == before


def test_the_sections_come_in_the_order_they_are_read_in(text: str) -> None:
    """What it is for and its limits open the card; other notes follow the reasons."""
    assert _headings(text) == [
        "Model card: Application for the lease of a bicycle",
        "Limits",
        "Intended use",
        "Data",
        "Training",
        "Features",
        "Performance",
        "Calibration",
        "Policy",
        "Reasons",
        "Fairness",
        "Libraries",
    ]
    assert "Leases of *one* bicycle." in text


def test_the_card_names_the_data_and_what_was_left_out(text: str) -> None:
    """Name, licence, source, sum and counts; each reason for leaving rows out has its own."""
    assert dict(_table(text, "Data set")[1:]) == {
        "Name": "Leases of bicycles",
        "Licence": "CC0 1.0",
        "Source": "made up",
        "SHA-256 of the file": SHA256,
        "Rows read": "10,100",
        "Rows used": "10,000",
    }
    assert _table(text, "Rows left out because")[1:] == [
        ["exact duplicate", "60"],
        ["age outside 18 to 100", "40"],
    ]
    assert _table(text, "Values mended")[1:] == [["income outside its range, set to missing", "7"]]


def test_the_card_says_how_the_model_was_trained(text: str) -> None:
    """Estimator, hold-out, refit, every setting, and the libraries in order of name."""
    assert "Estimator: `xgboost`." in text
    assert "without the hold-out of 2,000 rows" in text
    assert "the same settings to all 10,000 rows" in text
    assert dict(_table(text, "Setting")[1:]) == {
        "seed": "42",
        "hold_out.kind": "stratified",
        "hold_out.share": "0.2",
        "parameters.max_depth": "6",
        "parameters.columns": '["a", "b"]',
    }
    assert _table(text, "Library")[1:] == [["numpy", "2.4.6"], ["xgboost", "3.2.0"]]


def test_a_card_without_a_hold_out_does_not_claim_one(files: dict[str, bytes]) -> None:
    """A pipeline fitted elsewhere is evaluated on all rows, and both card and plots say so."""
    facts = _facts()
    data = facts.data.copy()
    data["rows_used"] = facts.evaluation.rows

    others = render(replace(facts, data=data))

    text = others["card.md"].decode()
    assert "hold-out" not in text
    assert "not fitted to" not in text
    assert "fitted elsewhere. The figures below are of all 2,000 rows" in text
    assert "Transform" not in _table(text, "Field")[0]
    assert "log(1 + x)" not in text
    assert "Derived" not in text
    assert all(others[name] != files[name] for name in PLOTS)


def test_the_card_lists_every_field_as_the_schema_has_it(text: str, schema: Schema) -> None:
    """The features' table is the schema's list, and derived numbers have their formula."""
    rows = _table(text, "Field")[1:]

    assert [row[0] for row in rows] == list(schema.names)
    by_name = {row[0]: row for row in rows}
    assert by_name["income"] == [
        "income",
        "Monthly income",
        "number",
        "currency units per month",
        "100 to 100,000",
        "no",
        "none",
        "",
        "log(1 + x)",
        "INCOME_INSUFFICIENT",
    ]
    assert by_name["history"][2:8] == [
        "ordered category",
        "",
        "good < mixed < poor, safest first",
        "no",
        "increasing",
        "yes",
    ]
    assert by_name["age"][6:8] == ["decreasing", "no: 12.5% of applicants, by up to 0.032"]
    assert "**Warning:** the PD moves against the direction that the schema promises" in text
    assert by_name["use"][4] == "cargo, commuting, racing"
    assert by_name["years_employed"][5] == "yes"
    assert _table(text, "Derived")[1:] == [
        ["price_to_income", "price / income", "increasing", "price"]
    ]


@pytest.mark.usefixtures("_undrawn")
def test_a_field_that_follows_from_others_has_its_formula() -> None:
    """A share that the applicant states is shown with what it is computed from."""
    document = toys.schema().model_dump()
    document["fields"][1]["follows"] = {
        "numerator": "price",
        "denominator": "age",
        "decimals": 2,
    }

    text = render(replace(_facts(), schema=Schema.model_validate(document)))["card.md"].decode()

    formula = "`income` follows from the application: `price` / `age`, rounded to 2 decimals."
    assert formula in text


def test_the_card_gives_the_figures_of_the_evaluation(text: str) -> None:
    """Performance, confusion, deciles and bands are the evaluation's own."""
    e = _facts().evaluation

    figures = {row[0]: row[1] for row in _table(text, "Figure")[1:]}
    assert figures["ROC-AUC"] == f"{e.roc_auc:.4f}"
    assert figures["Gini"] == f"{e.gini:.4f}"
    assert figures["KS"] == f"{e.ks:.4f}"
    assert figures["PR-AUC"] == f"{e.pr_auc:.4f}"
    assert figures["Brier score"] == f"{e.brier:.4f}"
    assert figures["Log loss"] == f"{e.log_loss:.4f}"
    assert figures["Recall"] == f"{e.recall:.4f}"
    assert "a PD of 40% or more predicts a default" in text
    assert _table(text, "Observed")[1:] == [
        ["No default", f"{e.confusion.tn:,}", f"{e.confusion.fp:,}"],
        ["Default", f"{e.confusion.fn:,}", f"{e.confusion.tp:,}"],
    ]
    assert f"equal count: **{e.ece_equal_count:.4f}**" in text
    assert f"equal width: {e.ece_equal_width:.4f}" in text
    deciles = _table(text, "Decile")[1:]
    assert [row[4] for row in deciles] == [f"{d.default_rate:.2%}" for d in e.deciles]
    bands = _table(text, "Band")[1:]
    assert [(row[0], row[1], row[2], row[3]) for row in bands] == [
        ("LOW", "0% to 10%", "APPROVE", f"{e.bands[0].rows:,}"),
        ("MEDIUM", "10% to 20%", "APPROVE", f"{e.bands[1].rows:,}"),
        ("HIGH", "20% to 40%", "REVIEW", f"{e.bands[2].rows:,}"),
        ("VERY_HIGH", "40% to 100%", "DECLINE", f"{e.bands[3].rows:,}"),
    ]
    assert f"DECLINE {e.decisions['DECLINE']:.1%}" in text


def test_the_card_puts_the_policys_rules_in_words(text: str) -> None:
    """Each rule has its kind, decision, conditions and reason; the policy's version is named."""
    assert "`2.1.0+0123abcd`" in text
    assert _table(text, "Rule")[1:] == [
        ["price-above-limit", "knock-out", "DECLINE", "price > 15000", "PRICE_ABOVE_LIMIT"],
        [
            "poor-history-and-racing",
            "referral",
            "REVIEW",
            "history = poor and use is one of racing",
            "DELINQUENT_OBLIGATIONS",
        ],
        [
            "no-employment-stated",
            "referral",
            "REVIEW",
            "years_employed is missing",
            "EMPLOYMENT_NOT_STATED",
        ],
    ]


@pytest.mark.usefixtures("_undrawn")
def test_the_card_writes_a_quantity_as_a_formula() -> None:
    """What is divided or subtracted, and a quantity within another in brackets."""
    rule = {
        "name": "the-rule",
        "kind": "referral",
        "when": [
            {"quantity": {"difference": ["age", "years_employed"]}, "op": "lt", "value": 14},
            {
                "quantity": {"distance": ["years_employed", {"ratio": ["price", "income"]}]},
                "op": "gt",
                "value": 0.5,
            },
        ],
        "reason": "APPLICANT_AGE",
    }
    policy = toys.policy().model_copy(update={"rules": (Rule.model_validate(rule),)})

    text = render(replace(_facts(), policy=policy))["card.md"].decode()

    assert _table(text, "Rule")[1][3] == (
        "age - years_employed < 14 and distance of years_employed and (price / income) > 0.5"
    )


def test_the_card_gives_the_reasons_their_group_and_how_true_they_are(
    text: str, reasons: ReasonDictionary
) -> None:
    """Reference group, fidelity, and each approved text with the fields or rules behind it."""
    assert "**all applicants**: everyone who applied. Rows drawn: 2,000, seed 5;" in text
    assert _table(text, "How true the reasons are")[1:] == [
        ["Same first reason, share of declines", "0.9652"],
        ["Declines compared", "1,210"],
        ["Largest additivity error", "3.1e-13 log-odds"],
    ]
    codes = {row[0]: row[1:] for row in _table(text, "Code")[1:]}
    assert {code: row[0] for code, row in codes.items()} == reasons.texts
    assert codes["DELINQUENT_OBLIGATIONS"][1] == "history, rule poor-history-and-racing"
    assert codes["PRICE_ABOVE_LIMIT"][1] == "rule price-above-limit"


NASTY = r"a | b \| c \ *d* `e` [f](g) <h> &amp; {i}"


@pytest.mark.usefixtures("_undrawn")
def test_what_means_something_in_markdown_is_shown_as_it_is() -> None:
    """Pipes, backslashes, stars and the like in the facts break no table and mark up nothing."""
    document = toys.schema().model_dump()
    document["title"] = document["fields"][0]["title"] = document["fields"][1]["unit"] = NASTY
    document["fields"][5]["categories"] = [NASTY, "two\nlines"]
    document["fields"][5]["example"] = NASTY
    facts = _facts()
    data = facts.data.copy()
    data["name"], data["dropped"] = NASTY, {NASTY: 1}
    text = render(
        replace(
            facts,
            schema=Schema.model_validate(document),
            data=data,
            settings={NASTY: NASTY},
            fidelity={NASTY: NASTY},
            reference=ReferenceGroup(name=NASTY, description=NASTY, rows=1, seed=0),
            notes={NASTY: "text"},
        )
    )["card.md"].decode()

    tables = _tables(text)
    assert len(tables) == len(_tables(render(facts)["card.md"].decode()))
    for table in tables:
        assert {len(row) for row in table} == {len(table[0])}
    assert _table(text, "Data set")[1][1] == NASTY
    assert _table(text, "Rows left out because")[1] == [NASTY, "1"]
    assert _table(text, "Setting")[1] == [NASTY, NASTY]
    assert _table(text, "How true the reasons are")[1] == [f"A{NASTY[1:]}", NASTY]
    fields = {row[0]: row for row in _table(text, "Field")[1:]}
    assert fields["age"][1] == fields["income"][3] == NASTY
    assert fields["use"][4] == f"{NASTY}, two lines"
    assert MarkdownIt().render(text).count("<h2>") == 9


@pytest.mark.usefixtures("_undrawn")
def test_the_card_warns_of_pds_that_are_not_true() -> None:
    """Where the figures are, at the top; the card of a true model says nothing of the kind."""
    labels, pds = _hold_out(40_000)

    true, low = (
        render(replace(_facts_of(labels, p), kept={}))["card.md"].decode() for p in (pds, pds * 0.8)
    )

    assert "**Warning:**" not in true
    warning = low.index("**Warning:** the expected calibration error is")
    assert low.index("expected calibration error") < warning < low.index("## Intended use")


def test_no_rows_pd_is_in_the_card(text: str) -> None:
    """Only means and rounded edges are written: no row's PD can be read from any figure."""
    written = set(re.findall(r"\d+\.\d{5,}", text))
    assert not written
    assert not re.search(r"\b(19|20)\d\d-\d\d-\d\d\b", text)


@pytest.mark.usefixtures("_undrawn")
def test_a_card_without_rules_derived_numbers_or_dropped_rows_says_so() -> None:
    """What there is none of is said, or left out; no empty table stands there."""
    facts = _facts()
    policy = toys.policy().model_copy(update={"rules": ()})
    schema = toys.schema().model_copy(update={"derived": ()})
    data = facts.data.copy()
    data["dropped"], data["mended"] = {}, {}

    text = render(replace(facts, policy=policy, schema=schema, data=data, notes={}))["card.md"]

    assert b"This policy has no rules." in text
    assert b"No row was left out." in text
    assert b"| Derived |" not in text
    assert all(len(table) > 1 for table in _tables(text.decode()))


@pytest.mark.parametrize(
    ("labels", "pds"),
    [
        ([0, 1], [0.0, 1.0]),
        ([0, 1, 0, 1], [0.3, 0.3, 0.3, 0.3]),
        ([1, 0, 0, 0], [1e-9, 1e-9, 2e-9, 0.0]),
        ([1, 1, 0, 1], [1.0, 0.9999999, 1.0, 1.0]),
    ],
)
def test_a_poor_or_tiny_model_gets_its_card_too(labels: list[int], pds: list[float]) -> None:
    """PDs of exactly 0 and 1, one PD for all, and empty bands are drawn without a warning."""
    files = render(_facts_of(np.array(labels), np.array(pds)))

    assert all(files[name].startswith(PNG_SIGNATURE) for name in PLOTS)


@pytest.mark.usefixtures("_undrawn")
def test_what_no_row_is_predicted_or_banded_to_has_no_figure() -> None:
    """Precision of no predictions and rates of empty bands are marked as absent."""
    text = render(_facts_of(np.array([0, 1]), np.array([0.01, 0.15])))["card.md"].decode()

    figures = {row[0]: row[1] for row in _table(text, "Figure")}
    assert figures["Precision"] == "n/a"
    assert _table(text, "Band")[3][3:] == ["0", "0.0%", "n/a", "n/a"]
