"""The model card: what a package is for, how it was made and how good it is, for people to read.

Markdown with plots, made of aggregates only: no applicant's row, and no single row's PD, is in it.
The same facts always give the same bytes, since the package's version is derived from its files;
so there is no date here, and no version of the package itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from scipy.special import expit, logit
from sklearn.metrics import roc_curve

from credit_risk.reasons import MOST
from credit_risk.training import directions, plots
from credit_risk.training.evaluation import CONFIDENCE
from credit_risk.training.settings import PORTFOLIO_NOTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from credit_risk.package import ReferenceGroup
    from credit_risk.policy import Condition, Policy, Quantity, Rule
    from credit_risk.reasons import ReasonDictionary
    from credit_risk.schema import FieldSpec, Ratio, Schema
    from credit_risk.training.directions import Kept
    from credit_risk.training.evaluation import Evaluation, Floats, Labels

LEADING_NOTES = (*PORTFOLIO_NOTES, "Limits")
"""Notes of these titles open the card; the others follow the reasons."""


class DataUsed(TypedDict):
    """The data a model was trained on.

    ``dropped`` counts the rows left out, ``mended`` the values set to missing, each by reason.
    """

    name: str
    licence: str
    source: str
    sha256: str
    rows_read: int
    rows_used: int
    dropped: Mapping[str, int]
    mended: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card says.

    ``labels`` and ``pds`` are the rows evaluated, shape (n,), and ``evaluation`` is of them; they
    are only drawn as curves and histograms. ``settings`` is how it was trained (any JSON values);
    ``fidelity`` are named figures of how true the reasons are; ``kept`` is how well each promised
    direction is kept (`directions.measure`); ``notes`` are the portfolio's own sections, title to
    Markdown text (see `LEADING_NOTES`).
    """

    schema: Schema
    policy: Policy
    policy_version: str
    reasons: ReasonDictionary
    data: DataUsed
    estimator: str
    settings: Mapping[str, Any]
    evaluation: Evaluation
    labels: Labels
    pds: Floats
    reference: ReferenceGroup
    fidelity: Mapping[str, float | int | str]
    kept: Mapping[str, Kept]
    libraries: Mapping[str, str]
    notes: Mapping[str, str]

    @property
    def held_out(self) -> bool:
        """Whether the rows evaluated were kept from the model; if not, they are all rows used."""
        return self.evaluation.rows < self.data["rows_used"]


def render(facts: CardFacts) -> dict[str, bytes]:
    """The card's files: ``card.md`` and the plots it shows, by their paths within the package."""
    files = {"card.md": _markdown(facts).encode()}
    # A reader's own matplotlibrc must not change a package's bytes.
    with style.context(["default", plots.STYLE]):
        for name, figure in (
            ("roc", _roc(facts)),
            ("calibration", _calibration(facts)),
            ("scores", _scores(facts)),
            ("ks", _ks(facts)),
        ):
            files[f"plots/{name}.png"] = plots.png(figure)
    return files


def _markdown(facts: CardFacts) -> str:
    leading = [(title, text) for title, text in facts.notes.items() if title in LEADING_NOTES]
    others = [(title, text) for title, text in facts.notes.items() if title not in LEADING_NOTES]
    blocks = [
        *_summary(facts),
        *_notes(leading),
        *_data(facts.data),
        *_training(facts),
        *_features(facts),
        *_performance(facts.evaluation),
        *_calibration_section(facts.evaluation),
        *_policy(facts.policy, facts.evaluation),
        *_reasons(facts),
        *_notes(others),
        "## Libraries",
        _table(("Library", "Version"), sorted(facts.libraries.items())),
    ]
    return "\n\n".join(blocks) + "\n"


def _summary(facts: CardFacts) -> list[str]:
    e = facts.evaluation
    version = facts.policy_version
    warnings = (e.warning, directions.warning(facts.kept))
    unseen = " it was not fitted to" if facts.held_out else ""
    return [
        f"# Model card: {_text(facts.schema.title)}",
        (
            f"Portfolio {_code(facts.schema.portfolio)}, schema {_code(facts.schema.version)}, "
            f"policy {_code(version)}."
        ),
        (
            "For one application the model gives a probability of default (PD). The policy, not "
            "the model, makes a band and a decision of it; each decision that is not an approval "
            "comes with its reasons."
        ),
        (
            f"On {e.rows:,} rows{unseen}: **ROC-AUC {e.roc_auc:.4f}**, Gini {e.gini:.4f}, KS "
            f"{e.ks:.4f}, **Brier {e.brier:.4f}**, expected calibration error "
            f"{e.ece_equal_count:.4f}."
        ),
        *[f"**Warning:** {_text(warning)}." for warning in warnings if warning],
        (
            "The package's version is derived from its files, of which this card is one: it bears "
            "neither date nor version."
        ),
    ]


def _notes(notes: Iterable[tuple[str, str]]) -> list[str]:
    return [block for title, text in notes for block in (f"## {_text(title)}", text.strip())]


def _data(data: DataUsed) -> list[str]:
    rows = [
        ("Name", _text(data["name"])),
        ("Licence", _text(data["licence"])),
        ("Source", _text(data["source"])),
        ("SHA-256 of the file", _code(data["sha256"])),
        ("Rows read", f"{data['rows_read']:,}"),
        ("Rows used", f"{data['rows_used']:,}"),
    ]
    dropped = [(_text(reason), f"{count:,}") for reason, count in data["dropped"].items()]
    mended = [(_text(reason), f"{count:,}") for reason, count in data["mended"].items()]
    return [
        "## Data",
        _table(("Data set", ""), rows),
        _table(("Rows left out because", "Rows"), dropped, "lr")
        if dropped
        else "No row was left out.",
        *([_table(("Values mended", "Values"), mended, "lr")] if mended else []),
        (
            "None of these rows is in the package. What it holds of them are distributions, and "
            "applicants drawn from those."
        ),
    ]


def _training(facts: CardFacts) -> list[str]:
    evaluated, used = facts.evaluation.rows, facts.data["rows_used"]
    if facts.held_out:
        how = (
            f"The figures below are of a model that was fitted without the hold-out of "
            f"{evaluated:,} rows. The model in the package was then fitted with the same settings "
            f"to all {used:,} rows."
        )
    else:
        how = (
            f"The model was fitted elsewhere. The figures below are of all {used:,} rows; if it "
            "was fitted to any of them, they flatter it."
        )
    settings = [(_code(name), _code(value)) for name, value in _flat(facts.settings)]
    return [
        "## Training",
        f"Estimator: {_code(facts.estimator)}. {how}",
        _table(("Setting", "Value"), settings),
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield (
                f"{prefix}{name}",
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
            )


def _features(facts: CardFacts) -> list[str]:
    # What columns a pipeline makes of the fields is known only of our own.
    schema, ours = facts.schema, facts.held_out
    fields = [
        (
            _code(f.name),
            _text(f.title),
            f"ordered {f.type}" if f.ordered else f.type,
            _text(f.unit or ""),
            _values(f),
            "yes" if f.nullable else "no",
            f.direction,
            _held(facts.kept.get(f.name)),
            *(["log(1 + x)" if f.transform == "log" else f.transform] if ours else []),
            _code(f.reason),
        )
        for f in schema.fields
    ]
    columns = ("Field", "Title", "Type", "Unit", "Values", "May be missing", "Direction", "Held")
    blocks = [
        "## Features",
        (
            "Direction is what the portfolio promises: with *increasing* the PD never falls as the "
            "field rises, with *decreasing* it never rises. *Held* is whether this model keeps the "
            "promise, measured on made-up applicants: the field alone is moved over its range, and "
            f"the PD of nobody moves the wrong way by more than {directions.TOLERANCE:g}. An "
            "application with a value outside the range or the list is refused."
        ),
        _table((*columns, *(["Transform"] if ours else []), "Reason code"), fields),
    ]
    follows = [
        f"- {_code(f.name)} follows from the application: {_ratio(f.follows)}, rounded to "
        f"{f.follows.decimals} decimals."
        for f in schema.fields
        if f.follows is not None
    ]
    if follows:
        blocks.append("\n".join(follows))
    if schema.derived and ours:
        derived = [
            (_code(d.name), _ratio(d.ratio), d.direction, _code(d.factor)) for d in schema.derived
        ]
        blocks += [
            "The model also sees these; their effect is counted to the field named.",
            _table(("Derived", "Formula", "Direction", "Counted to"), derived),
        ]
    return blocks


def _held(kept: Kept | None) -> str:
    if kept is None:
        return ""
    if not kept.share:
        return "yes"
    return f"no: {kept.share:.1%} of applicants, by up to {kept.largest:.2g}"


def _values(field: FieldSpec) -> str:
    if field.minimum is not None and field.maximum is not None:
        return f"{_number(field.minimum)} to {_number(field.maximum)}"
    if field.ordered:
        return f"{' < '.join(_code(c) for c in field.categories)}, safest first"
    return ", ".join(_code(c) for c in field.categories)


def _ratio(ratio: Ratio) -> str:
    return f"{_code(ratio.numerator)} / {_code(ratio.denominator)}"


def _performance(e: Evaluation) -> list[str]:
    figures = [
        ("Rows", f"{e.rows:,}", "evaluated"),
        ("Defaults", f"{e.defaults:,}", f"{e.default_rate:.2%} of the rows"),
        ("Mean PD", f"{e.mean_pd:.2%}", "to be compared with the default rate"),
        ("ROC-AUC", f"{e.roc_auc:.4f}", "chance that a default has a higher PD than a non-default"),
        ("Gini", f"{e.gini:.4f}", "2 ROC-AUC - 1"),
        ("KS", f"{e.ks:.4f}", "widest gap between the outcomes' cumulative shares"),
        ("PR-AUC", f"{e.pr_auc:.4f}", "average precision; without skill it is the default rate"),
        ("Brier score", f"{e.brier:.4f}", "mean squared error of the PD; less is better"),
        ("Log loss", f"{e.log_loss:.4f}", "less is better"),
        ("Precision", _figure(e.precision), "share of predicted defaults that defaulted"),
        ("Recall", f"{e.recall:.4f}", "share of defaults that were predicted"),
    ]
    counts = e.confusion
    return [
        "## Performance",
        _table(("Figure", "Value", "Meaning"), figures, "lrl"),
        (
            "Precision, recall and this confusion matrix are at the policy's cut-off: a PD of "
            f"{_number(e.cut_off * 100)}% or more predicts a default."
        ),
        _table(
            ("Observed", "Predicted no default", "Predicted default"),
            (
                ("No default", f"{counts.tn:,}", f"{counts.fp:,}"),
                ("Default", f"{counts.fn:,}", f"{counts.tp:,}"),
            ),
            "lrr",
        ),
        (
            f"![ROC curve with the policy's edges; ROC-AUC {e.roc_auc:.3f}, Gini {e.gini:.3f}]"
            "(plots/roc.png)"
        ),
        f"![Cumulative share of each outcome by PD; KS {e.ks:.3f}](plots/ks.png)",
    ]


def _calibration_section(e: Evaluation) -> list[str]:
    deciles = [
        (
            str(d.decile),
            f"{d.lower:.2%} to {d.upper:.2%}",
            f"{d.rows:,}",
            f"{d.mean_pd:.2%}",
            f"{d.default_rate:.2%}",
            f"{d.default_rate_low:.2%} to {d.default_rate_high:.2%}",
        )
        for d in e.deciles
    ]
    interval = f"{CONFIDENCE:.0%} interval"
    return [
        "## Calibration",
        (
            "Expected calibration error over ten bins of equal count: "
            f"**{e.ece_equal_count:.4f}**; over ten bins of equal width: {e.ece_equal_width:.4f}. "
            "The interval is Wilson's, for the default rate; equal PDs are kept in one decile."
        ),
        _table(("Decile", "PD", "Rows", "Mean PD", "Default rate", interval), deciles, "rrrrrr"),
        (
            "![Observed default rate by decile of PD, with intervals, over the distribution of "
            f"PDs; Brier score {e.brier:.4f}](plots/calibration.png)"
        ),
    ]


def _policy(policy: Policy, e: Evaluation) -> list[str]:
    bands = [
        (
            _code(b.band),
            f"{_number(b.lower * 100)}% to {_number(b.upper * 100)}%",
            _code(b.decision),
            f"{b.rows:,}",
            f"{b.share:.1%}",
            _share(b.mean_pd),
            _share(b.default_rate),
        )
        for b in e.bands
    ]
    shares = ", ".join(f"{name} {share:.1%}" for name, share in e.decisions.items())
    rules = [
        (_code(r.name), r.kind, _code(r.decision), _conditions(r), _code(r.reason))
        for r in policy.rules
    ]
    header = ("Band", "PD", "Decision", "Rows", "Share", "Mean PD", "Default rate")
    return [
        "## Policy",
        "A PD on an edge belongs to the band above it. Rows and rates are of the rows evaluated.",
        _table(header, bands, "lrlrrrr"),
        (
            f"By band alone they would be decided: {shares}. Rules come after, and can only make a "
            "decision stricter:"
        ),
        _table(("Rule", "Kind", "Decision", "When", "Reason code"), rules)
        if rules
        else "This policy has no rules.",
        "![Distribution of PDs by outcome, with the policy's bands](plots/scores.png)",
    ]


_FORMULAS = {
    "ratio": "{} / {}",
    "difference": "{} - {}",
    "distance": "distance of {} and {}",
}
_SIGNS = {"eq": "=", "ne": "is not", "lt": "<", "le": "at most", "gt": ">", "ge": "at least"}


def _conditions(rule: Rule) -> str:
    return " and ".join(_condition(c) for c in rule.when)


def _condition(condition: Condition) -> str:
    subject = _operand(condition.quantity or str(condition.field))
    if condition.op == "missing":
        return f"{subject} is missing"
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    named = ", ".join(_code(v if isinstance(v, str) else f"{v:g}") for v in values)
    if condition.op in ("in", "not-in"):
        return f"{subject} is {'one' if condition.op == 'in' else 'none'} of {named}"
    return f"{subject} {_SIGNS[condition.op]} {named}"


def _operand(operand: str | Quantity) -> str:
    """A field, or a quantity as a formula; within another it stands in brackets."""
    if isinstance(operand, str):
        return _code(operand)
    first, second = (
        _operand(o) if isinstance(o, str) else f"({_operand(o)})" for o in operand.operands
    )
    return _FORMULAS[operand.operation].format(first, second)


def _reasons(facts: CardFacts) -> list[str]:
    group = facts.reference
    fidelity = [
        (_text(f"{name[:1].upper()}{name[1:]}".replace("_", " ")), _figure(value))
        for name, value in facts.fidelity.items()
    ]
    users: dict[str, list[str]] = {}
    for field in facts.schema.fields:
        users.setdefault(field.reason, []).append(_code(field.name))
    for rule in facts.policy.rules:
        users.setdefault(rule.reason, []).append(f"rule {_code(rule.name)}")
    codes = [
        (_code(reason.code), _text(reason.text), ", ".join(users.get(reason.code, ())))
        for reason in facts.reasons.reasons
    ]
    return [
        "## Reasons",
        (
            "Contributions are interventional Shapley values in log-odds of default, calibration "
            "included, against the reference group. Those of columns made of a field are "
            "added up to the applicant's own field, and fields to reason codes. Only codes that "
            f"raised the risk are given, the strongest first, at most {MOST}, and none with less "
            f"than {facts.reasons.least_share:.0%} of all that raised it. Where a rule made the "
            "decision, its reason is given first."
        ),
        (
            f"Reference group **{_text(group.name)}**: {_text(group.description.rstrip('.'))}. "
            f"Rows drawn: {group.rows:,}, seed {group.seed}; no real applicant is among them."
        ),
        _table(("How true the reasons are", "Figure"), fidelity, "lr"),
        _table(("Code", "Text given to the applicant", "From"), codes),
    ]


def _figure(value: float | str | None) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, str):
        return _text(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2%}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A Markdown table of cells that are Markdown already; ``align`` has an l or r per column."""
    rules = ["---:" if letter == "r" else "---" for letter in align or "l" * len(header)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rules, *rows))


def _text(value: str) -> str:
    """Plain text as Markdown, on one line and fit for a table's cell."""
    # An entity for the backslash: parsers differ on what two of them before a pipe mean.
    line = " ".join(value.split()).replace("&", "&amp;").replace("\\", "&#92;")
    return re.sub(r"([|*`\[\]<])", r"\\\1", line)


def _code(value: str) -> str:
    """Text in a code span, or plain where a code span cannot hold it in a table's cell."""
    return _text(value) if not value or re.search(r"[`|\\\n]", value) else f"`{value}`"


_PD_TICKS = (
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5,
    0.75, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9997, 0.9999,
)  # fmt: skip
_TAIL = 0.01  # share of the rows that may lie beyond each end of a PD axis
_SCORE_BINS = 48
_OUTCOMES = ((0, "no default", plots.BLUE, "-"), (1, "default", plots.VERMILION, "--"))


def _titled(axes: Axes, title: str, facts: CardFacts, above: float = 8.0) -> None:
    """Set a title and, under it, ``above`` points over the axes, what rows it is about."""
    sample = "hold-out" if facts.held_out else "all rows"
    axes.set_title(title, pad=above + 16.0)
    axes.annotate(
        f"{sample}: {facts.evaluation.rows:,} rows, {facts.evaluation.defaults:,} defaults",
        (0.0, 1.0),
        (0.0, above),
        xycoords="axes fraction",
        textcoords="offset points",
        color=plots.QUIET,
    )


def _roc(facts: CardFacts) -> Figure:
    e = facts.evaluation
    defaulted = facts.labels == 1
    figure = Figure(figsize=(6.4, 6.4))
    axes = figure.add_subplot(aspect="equal")
    fpr, tpr, _ = roc_curve(facts.labels, facts.pds)
    axes.plot((0, 1), (0, 1), color=plots.QUIET, linewidth=1.2, linestyle="--")
    axes.text(
        0.72, 0.75, "no discrimination", color=plots.QUIET, rotation=45, ha="center", va="center"
    )
    axes.plot(fpr, tpr, color=plots.BLUE, clip_on=False)
    lines = [f"{'PD from':>9} {'TPR':>7} {'FPR':>7}"]
    for threshold in sorted({e.cut_off, *(band.lower for band in facts.policy.bands[1:])}):
        caught = float((facts.pds[defaulted] >= threshold).mean())
        flagged = float((facts.pds[~defaulted] >= threshold).mean())
        is_cut_off = threshold == e.cut_off
        axes.plot(
            flagged,
            caught,
            marker="o",
            markersize=8,
            markeredgewidth=1.8,
            color=plots.VERMILION,
            markerfacecolor=plots.VERMILION if is_cut_off else "white",
            clip_on=False,
            zorder=3,
        )
        axes.annotate(
            f"PD {threshold * 100:g}%{' (cut-off)' if is_cut_off else ''}",
            (flagged, caught),
            (10, -4),
            textcoords="offset points",
            va="top",
        )
        lines.append(f"{threshold * 100:>8g}% {caught:>7.1%} {flagged:>7.1%}")
    axes.text(
        0.97,
        0.25,
        f"ROC-AUC {e.roc_auc:.3f}\nGini {e.gini:.3f}",
        ha="right",
        fontsize=13,
        weight="bold",
        linespacing=1.4,
    )
    axes.text(
        0.97,
        0.04,
        "\n".join(lines),
        ha="right",
        family="DejaVu Sans Mono",
        fontsize=9,
        linespacing=1.4,
    )
    axes.set(
        xlim=(0, 1),
        ylim=(0, 1),
        xlabel="False positive rate: share of non-defaults at or above a PD",
        ylabel="True positive rate: share of defaults at or above it",
    )
    plots.percent(axes, "xy")
    _titled(axes, "ROC curve", facts)
    return figure


def _calibration(facts: CardFacts) -> Figure:
    e = facts.evaluation
    figure = Figure(figsize=(6.4, 7.6))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    rates = np.array([d.default_rate for d in e.deciles])
    below = rates - [d.default_rate_low for d in e.deciles]
    beyond = [d.default_rate_high for d in e.deciles] - rates
    upper.plot((0, 1), (0, 1), color=plots.QUIET, linewidth=1.2, linestyle="--", label="perfect")
    upper.errorbar(
        [d.mean_pd for d in e.deciles],
        rates,
        # Rounding can put a bound of the interval a hair on the wrong side of a rate of 0 or 1.
        yerr=(np.maximum(below, 0.0), np.maximum(beyond, 0.0)),
        fmt="o",
        color=plots.BLUE,
        markersize=6,
        capsize=4,
        elinewidth=1.6,
        clip_on=False,
        zorder=3,
        label=f"decile of PD, with {CONFIDENCE:.0%} interval",
    )
    upper.legend(loc="upper left")
    upper.text(
        0.97,
        0.04,
        f"Brier score {e.brier:.4f}\nCalibration error {e.ece_equal_count:.4f} by equal count,\n"
        f"{e.ece_equal_width:.4f} by equal width",
        transform=upper.transAxes,
        ha="right",
        linespacing=1.5,
    )
    edges = np.linspace(0.0, 1.0, 41) ** 2
    lower.stairs(np.histogram(facts.pds, edges)[0] / e.rows, edges, fill=True, color=plots.BLUE)
    ticks = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
    for axes in (upper, lower):
        axes.set_xscale("function", functions=(plots.root, np.square))
        axes.set_xticks(ticks)
    upper.set_yscale("function", functions=(plots.root, np.square))
    upper.set_yticks(ticks)
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Observed default rate (square-root scale)")
    lower.set(xlabel="Predicted PD (square-root scale)", ylabel="Share of rows")
    plots.percent(upper, "y")
    plots.percent(lower, "xy")
    _titled(upper, "Calibration", facts)
    return figure


def _scores(facts: CardFacts) -> Figure:
    figure = Figure(figsize=(8.0, 5.0))
    axes = figure.add_subplot()
    low, high = _pd_axis(axes, facts)
    edges = np.linspace(logit(low), logit(high), _SCORE_BINS + 1)
    for label, name, colour, line in _OUTCOMES:
        inside = logit(np.clip(facts.pds[facts.labels == label], low, high))
        shares = np.histogram(inside, edges)[0] / len(inside)
        axes.stairs(shares, edges, fill=True, color=colour, alpha=0.25, linewidth=0)
        axes.stairs(shares, edges, color=colour, linestyle=line, linewidth=1.8, label=name)
    axes.set_ylabel("Share of the rows of that outcome")
    _outcomes(axes)
    plots.percent(axes, "y")
    _titled(axes, "PD by outcome", facts, above=34.0)
    return figure


def _ks(facts: CardFacts) -> Figure:
    e = facts.evaluation
    figure = Figure(figsize=(8.0, 5.0))
    axes = figure.add_subplot()
    low, high = _pd_axis(axes, facts)
    at = np.linspace(logit(low), logit(high), 1_001)
    shares = []
    for label, name, colour, line in _OUTCOMES:
        inside = np.sort(logit(np.clip(facts.pds[facts.labels == label], low, high)))
        shares.append(np.searchsorted(inside, at, side="right") / len(inside))
        axes.plot(at, shares[-1], color=colour, linestyle=line, label=name)
    widest = int(np.argmax(np.abs(shares[0] - shares[1])))
    ends = (shares[0][widest], shares[1][widest])
    axes.plot([at[widest]] * 2, ends, color=plots.INK, linewidth=1.4, marker="_", markersize=10)
    axes.text(
        0.97,
        0.05,
        f"KS {e.ks:.3f}\nat PD {expit(at[widest]) * 100:.3g}%",
        transform=axes.transAxes,
        ha="right",
        fontsize=13,
        weight="bold",
        linespacing=1.4,
    )
    axes.set(ylim=(0, 1), ylabel="Share of the rows of that outcome at or below a PD")
    _outcomes(axes)
    plots.percent(axes, "y")
    _titled(axes, "Cumulative share by outcome", facts, above=34.0)
    return figure


def _outcomes(axes: Axes) -> None:
    """A legend of the outcomes above the right end of the axes, where no curve can be."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.08), ncols=len(_OUTCOMES))


def _pd_axis(axes: Axes, facts: CardFacts) -> tuple[float, float]:
    """Make the x axis the PD's log-odds, over the policy's bands; the least and greatest PD on it.

    The axis reaches over all but the outermost PDs, which are drawn at its ends.
    """
    tails = np.quantile(facts.pds, (_TAIL, 1.0 - _TAIL))
    edges = [band.lower for band in facts.policy.bands[1:]]
    low = max((t for t in _PD_TICKS if t <= min(tails[0], edges[0])), default=_PD_TICKS[0])
    high = min((t for t in _PD_TICKS if t >= max(tails[1], edges[-1])), default=_PD_TICKS[-1])
    ticks = [t for t in _PD_TICKS if low <= t <= high]
    axes.set_xlim(logit(low), logit(high))
    # Small, or 99.97 and 99.99 run together.
    axes.set_xticks(logit(ticks), [f"{t * 100:g}" for t in ticks], fontsize=8)
    axes.set_xlabel("PD (%, log-odds scale; PDs beyond the ends are counted at the ends)")
    for i, band in enumerate(facts.policy.bands):
        left, right = (logit(float(np.clip(p, low, high))) for p in (band.lower, band.upper))
        axes.axvspan(left, right, color="#000000", alpha=(0.0, 0.06)[i % 2], linewidth=0, zorder=0)
        if i:
            axes.axvline(left, color=plots.QUIET, linewidth=1.0, linestyle=":")
        axes.annotate(
            f"{band.name}: {band.decision}",
            ((left + right) / 2.0, 1.0),
            (0, (16, 4)[i % 2]),  # neighbours on two lines: a band may be narrower than its name
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    return low, high
