"""The evidence pack: what can be shown of one model package, for who has to judge it.

A folder of files. ``evidence.json`` holds topics (the model card, where the data are from, the
decisions made, and so on), each of statements, and each statement names what it rests on: a file of
the folder, or records, and the SHA-256 of either. The sections of the legal regime in force say
which topics they ask for; a topic that has nothing to show says why. ``index.html`` is the same to
read, and ``SHA256SUMS`` seals the folder.

Nothing personal is in it: decisions are counted, not told.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from credit_risk import __version__, scoring
from credit_risk.audit.records import NO_TIME, moment, pages
from credit_risk.audit.tables import HEAD, MONITORING_RESULTS, OUTCOMES, RECORDS
from credit_risk.errors import ExplanationFailed, OutputRefused, PackageInvalid
from credit_risk.replay import PAGE_RECORDS, Candidate, Comparison, listings_of, replay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from credit_risk.audit.findings import Report
    from credit_risk.audit.log import SqlRecords
    from credit_risk.audit.records import Filters, RecordKind, Records
    from credit_risk.package import ModelPackage
    from credit_risk.regimes import Evidence, Regime

FORMAT = 1
PACKAGE, REGIME = "package", "regime.yaml"
_FOLDER = Path(__file__).parent
_CHUNK = 10_000
_CASES_NAMED = 20
"""Of those of which the queue of reviews says otherwise than the records."""
_C = RECORDS.c
_O = OUTCOMES.c
_M = MONITORING_RESULTS.c

TITLES: dict[Evidence, str] = {
    "model-card": "Model card",
    "data-provenance": "Where the data are from",
    "performance": "Performance on rows held out",
    "calibration": "Calibration on rows held out",
    "reasons-method": "Reasons: method and fidelity",
    "fairness": "Fairness",
    "policy": "Policy",
    "approvals": "Approvals",
    "activation-history": "Activation history",
    "decisions": "Decisions made",
    "reviews": "Human reviews",
    "record-integrity": "Integrity of the records",
    "replay": "Decisions made again",
    "drift": "Drift",
    "outcomes": "Outcomes",
    "regime": "Regime",
}


@dataclass(frozen=True, slots=True)
class Rests:
    """What a statement rests on: a file of the pack or records, and their SHA-256."""

    on: str
    sha256: str


@dataclass(slots=True)
class Topic:
    """What there is to show of one thing; ``missing`` says why there is nothing.

    ``findings`` are what contradicts it, for the top of the pack; ``figures`` are numbers that
    sum it up, each under a label.
    """

    statements: list[tuple[str, Rests]] = field(default_factory=list)
    tables: list[tuple[list[str], list[list[Any]]]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    missing: str | None = None
    findings: list[str] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def say(self, rests: Rests, *texts: str) -> None:
        """Add statements that rest on the same."""
        self.statements += [(text, rests) for text in texts]

    def to_json(self, title: str) -> dict[str, Any]:
        """The topic as JSON."""
        return {
            "title": title,
            "missing": self.missing,
            "statements": [
                {"text": text, "rests_on": rests.on, "sha256": rests.sha256}
                for text, rests in self.statements
            ],
            "tables": [{"columns": columns, "rows": rows} for columns, rows in self.tables],
            "images": self.images,
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out for the pack; None where it was not looked for.

    ``replayed`` are decisions of the package made again, ``integrity`` is what a verification of
    the whole log ended with, ``reviews`` the counts of reviews of its decisions, or in words why
    they cannot be counted.
    """

    replayed: Comparison | None = None
    integrity: Report | None = None
    reviews: Mapping[str, Any] | str | None = None


def pack(
    package: ModelPackage,
    regime: Regime,
    regime_sha256: str,
    records: SqlRecords | None,
    findings: Findings,
    *,
    made_at: int,
) -> dict[str, Any]:
    """Everything there is to show, as JSON.

    Args:
        package: what it is about.
        regime: whose sections are answered.
        regime_sha256: of its file.
        records: of decisions and activations; None where nothing was recorded yet.
        findings: what was found out before.
        made_at: now, microseconds since the epoch.

    Raises:
        RecordingFailed: the records cannot be read.
    """
    topics: dict[Evidence, Topic] = {
        "model-card": _card(package),
        "data-provenance": _provenance(package),
        "performance": _performance(package),
        "calibration": _calibration(package),
        "reasons-method": _reasons(package),
        "fairness": _fairness(package, records),
        "policy": _policy(package),
        "approvals": _approvals(package, records),
        "activation-history": _activations(package, records),
        "decisions": _decisions(package, records),
        "reviews": _reviews(package, records, findings.reviews),
        "record-integrity": _integrity(records, findings.integrity),
        "replay": _replay(package, findings.replayed),
        "drift": _drift(package, records),
        "outcomes": _outcomes(package, records),
        "regime": _regime(regime, regime_sha256),
    }
    asked = dict.fromkeys(name for section in regime.sections for name in section.requires)
    return {
        "format": FORMAT,
        "made_at": moment(made_at),
        "service": {"name": "credit-risk-server", "version": __version__},
        "portfolio": package.portfolio,
        "title": package.schema.title,
        "model_version": package.version,
        "package_sha256": package.digest,
        "policy_version": package.policy_version,
        "regime": {
            "id": regime.id,
            "version": regime.version,
            "title": regime.title,
            "caveat": regime.caveat,
            "sha256": regime_sha256,
        },
        "findings": [
            {"topic": name, "text": text}
            for name, topic in topics.items()
            for text in topic.findings
        ],
        "missing": [name for name in topics if name in asked and topics[name].missing is not None],
        "figures": [
            {"topic": name, "label": label, "value": value}
            for name, topic in topics.items()
            for label, value in topic.figures.items()
        ],
        "sections": [
            {
                "id": section.id,
                "title": section.title,
                "requires": [
                    {"topic": name, "shown": topics[name].missing is None}
                    for name in section.requires
                ],
            }
            for section in regime.sections
        ],
        "topics": {name: topic.to_json(TITLES[name]) for name, topic in topics.items()},
    }


def replayed(
    package: ModelPackage,
    records: Records,
    most: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Comparison:
    """The newest decisions of a package, made again.

    Args:
        package: that decided.
        records: hold the decisions.
        most: as many at most.
        progress: told how many are done, of how many.

    Raises:
        RecordingFailed: the records cannot be read.
    """
    comparison, listings = Comparison(), listings_of(records)
    within: Filters = {
        "portfolio": package.portfolio,
        "kind": "decision",
        "model_version": package.version,
    }
    total = min(most, records.count(**within))
    for page in pages(records, size=min(PAGE_RECORDS, max(total, 1)), **within):
        some = page[: total - comparison.records]
        for made in replay(some, lambda _portfolio, _version: package, listings=listings):
            comparison.add(made)
        progress(comparison.records, total)
        if comparison.records >= total:
            break
    return comparison


def check_free(folder: Path) -> None:
    """See that a pack can have the folder.

    Raises:
        OutputRefused: it is there already.
    """
    if folder.exists():
        raise OutputRefused(f"{folder} is there already; a pack is a folder of its own")


def write(made: dict[str, Any], package: ModelPackage, regime_file: Path, folder: Path) -> None:
    """Write a pack into a folder of its own.

    Args:
        made: see `pack`.
        package: its files are copied beside it.
        regime_file: as well.
        folder: is made.

    Raises:
        OutputRefused: the folder is there already.
    """
    # Here and not above: no server needs them.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415
    from markdown_it import MarkdownIt  # noqa: PLC0415
    from markupsafe import Markup  # noqa: PLC0415

    check_free(folder)
    folder.mkdir(parents=True)
    shutil.copytree(package.path, folder / PACKAGE)
    shutil.copyfile(regime_file, folder / REGIME)
    text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "evidence.json").write_text(text + "\n", encoding="utf-8")
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    card = markdown.render((folder / PACKAGE / "card.md").read_text(encoding="utf-8"))
    page = environment.get_template("evidence.html.j2").render(
        pack=made,
        package=PACKAGE,
        regime=REGIME,
        files={path.relative_to(folder).as_posix() for path in folder.rglob("*")},
        # Safe: made from text in which no HTML is let through.
        card=Markup(card.replace('src="plots/', f'src="{PACKAGE}/plots/')),  # noqa: S704
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    sums = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in sums]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file(package: ModelPackage, name: str) -> Rests:
    return Rests(f"{PACKAGE}/{name}", package.digests[name])


def _manifest(package: ModelPackage) -> Rests:
    return Rests(f"{PACKAGE}/manifest.json", sha256_of(package.path / "manifest.json"))


def _card(package: ModelPackage) -> Topic:
    topic = Topic()
    topic.say(
        _file(package, "card.md"),
        "The card says what the model is for and what it is not, its limits, data, training, "
        "performance and reasons.",
    )
    topic.say(
        _manifest(package),
        f"The package holds data and no code; its version, {package.version}, is derived from "
        "its files, which the manifest names with their digests.",
    )
    return topic


def _provenance(package: ModelPackage) -> Topic:
    topic = Topic()
    origin = package.provenance
    how = "Trained on" if origin.trained_on is not None else "Trained elsewhere; evaluated on"
    data = origin.trained_on or origin.evaluated_on or {}
    # What a package says of its data beyond their name is up to who made it.
    named = [data[name] for name in ("name", "source", "licence") if name in data]
    said = [f"{how}: {', '.join(named)}."]
    if "sha256" in data:
        said.append(f"The file had the SHA-256 {data['sha256']}.")
    if "rows_read" in data:
        said.append(f"Of its {data['rows_read']:,} rows {data['rows_used']:,} were used.")
    said += [f"Left out: {n:,} rows, {why}." for why, n in data.get("dropped", {}).items()]
    said += [f"Mended: {n:,} values, {why}." for why, n in data.get("mended", {}).items()]
    said.append(f"Reference group of the reasons: {origin.reference.description}.")
    topic.say(_file(package, "provenance.json"), *said)
    return topic


def _hold_out(package: ModelPackage) -> dict[str, Any] | None:
    found: dict[str, Any] | None = package.metrics.get("hold_out")
    return found


_UNEVALUATED = "The package holds no evaluation on rows held out."


def _performance(package: ModelPackage) -> Topic:
    found = _hold_out(package)
    if found is None:
        return Topic(missing=_UNEVALUATED)
    topic = Topic(images=_plots(package, "roc", "ks", "scores"))
    topic.say(
        _file(package, "metrics.json"),
        f"On {found['rows']:,} rows that it was not fitted to, {found['defaults']:,} of them "
        f"defaults: ROC-AUC {found['roc_auc']:.4f}, Gini {found['gini']:.4f}, "
        f"KS {found['ks']:.4f}.",
    )
    topic.figures["ROC-AUC, held out"] = f"{found['roc_auc']:.4f}"
    shares = ", ".join(f"{name} {share:.1%}" for name, share in sorted(found["decisions"].items()))
    topic.say(_file(package, "metrics.json"), f"Decisions on these rows: {shares}.")
    return topic


def _calibration(package: ModelPackage) -> Topic:
    found = _hold_out(package)
    if found is None:
        return Topic(missing=_UNEVALUATED)
    topic = Topic(images=_plots(package, "calibration"))
    topic.say(
        _file(package, "metrics.json"),
        f"Brier score {found['brier']:.4f}; expected calibration error "
        f"{found['ece_equal_count']:.4f} in bins of equal count, "
        f"{found['ece_equal_width']:.4f} in bins of equal width.",
    )
    names = ["band", "decision", "rows", "mean_pd", "default_rate"]
    rows = [[_short(band[name]) for name in names] for band in found["bands"]]
    topic.tables.append((["band", "decision", "rows", "mean PD", "default rate"], rows))
    return topic


def _reasons(package: ModelPackage) -> Topic:
    topic = Topic()
    topic.say(
        _file(package, "explanation.npz")
        if "explanation.npz" in package.digests
        else _file(package, "reference.npz"),
        f"Method: {package.model.method}, in log-odds, against {package.model.reference_rows:,} "
        f"applicants of the group {package.provenance.reference.name}.",
        "Contributions are added up with the base value and compared with the score on every "
        "decision; a difference above 1e-6 fails the request.",
    )
    topic.say(
        _file(package, "reasons.yaml"),
        f"Approved wording of {len(package.reasons.texts)} reasons, version "
        f"{package.reasons.version}.",
    )
    fidelity = package.metrics.get("fidelity")
    if fidelity is not None:
        topic.say(
            _file(package, "metrics.json"),
            f"Against the real group instead of the drawn one, {fidelity['same_first_reason']:.1%} "
            f"of {fidelity['declines_compared']:,} declines have the same first reason, "
            f"{fidelity['same_set_of_reasons']:.1%} the same set of reasons.",
        )
    try:
        scoring.check_golden(package)
    except (PackageInvalid, ExplanationFailed) as error:
        golden = f"They do NOT come out on the machine that made this pack: {error}."
        topic.findings.append(f"The golden records do not come out: {error}.")
    else:
        golden = "They came out, reasons included, on the machine that made this pack."
    topic.say(
        _file(package, "golden.json"),
        f"The package has {len(package.golden)} golden records with their answers. {golden}",
    )
    return topic


def _policy(package: ModelPackage) -> Topic:
    topic = Topic()
    policy = package.policy
    topic.say(
        _file(package, "policy.yaml"),
        f"Policy {package.policy_version}: {len(policy.bands)} bands, {len(policy.rules)} rules.",
    )
    topic.tables.append(
        (
            ["band", "PD from", "PD below", "decision"],
            [[b.name, _short(b.lower), _short(b.upper), b.decision] for b in policy.bands],
        )
    )
    if policy.rules:
        rows = [[rule.name, rule.kind, rule.reason] for rule in policy.rules]
        topic.tables.append((["rule", "kind", "reason"], rows))
    return topic


_UNRECORDED = "Nothing is on record yet."


def _approvals(package: ModelPackage, records: SqlRecords | None) -> Topic:
    """Who has signed the package, by the records of it; whose the keys are is not asked."""
    if records is None:
        return Topic(missing=_UNRECORDED)
    mine: Filters = {
        "portfolio": package.portfolio,
        "model_version": package.version,
        "kind": "approval",
    }
    there = list(chain.from_iterable(pages(records, **mine)))
    names = ("approver", "key_id", "package_sha256")
    found = [r for r in there if r.body.get("package_sha256") == package.digest]
    topic = Topic(
        findings=[
            f"Record {record.id} of an approval: "
            f"{record.altered or 'it does not say what a server writes there'}."
            for record in there
            if record.altered is not None or not record.body.keys() >= set(names)
        ]
    )
    if not found:
        topic.missing = (
            "Nobody has approved the package; the activation history names who activated it."
        )
        return topic
    hashes = _hashes(records, [record.id for record in found])
    rows = [
        [moment(r.time), r.body.get("approver"), r.body.get("key_id"), r.id, hashes[r.id].hex()]
        for r in reversed(found)
    ]
    topic.tables.append((["time", "approver", "key", "record", "hash"], rows))
    topic.say(
        Rests("the records of these approvals, the newest first", _digest(hashes.values())),
        f"Approvals of the package, each with its signature on record: {len(found)}.",
    )
    return topic


def _activations(package: ModelPackage, records: SqlRecords | None) -> Topic:
    if records is None:
        return Topic(missing=_UNRECORDED)
    there = list(
        chain.from_iterable(pages(records, portfolio=package.portfolio, kind="activation"))
    )
    names = ("action", "from", "to", "by")
    found = [r for r in there if package.version in (r.body.get("from"), r.body.get("to"))]
    topic = Topic(
        findings=[
            f"Record {record.id} of an activation: "
            f"{record.altered or 'it does not say what a server writes there'}."
            for record in there
            if record.altered is not None or not record.body.keys() >= set(names)
        ]
    )
    started = _started(package, records)
    if not found and started is None:
        topic.missing = "The package was never activated, and no server has started with it."
        return topic
    if started is not None:
        rests, *times = started
        topic.say(rests, "Workers started with it {:,} times, from {} to {}.".format(*times))
        if not found:
            topic.say(
                rests,
                "Nobody activated it: it decides since the first of these starts, as the package "
                "that the portfolio ships as its default, or that a server's MODEL_VERSION names.",
            )
    if found:
        hashes = _hashes(records, [record.id for record in found])
        rows = [
            [moment(r.time), *(r.body.get(name) for name in names), r.id, hashes[r.id].hex()]
            for r in reversed(found)
        ]
        topic.tables.append((["time", *names, "record", "hash"], rows))
        topic.say(
            Rests("the records of these activations, the newest first", _digest(hashes.values())),
            f"Activations of the package, or of another in its place: {len(found)}.",
        )
    return topic


def _started(package: ModelPackage, records: SqlRecords) -> tuple[Rests, int, str, str] | None:
    """The records of starts with the package: their digest and number, the first and the last."""
    starts = (
        sa.select(_C.hash, _C.time)
        .where(
            _C.portfolio == package.portfolio,
            _C.model_version == package.version,
            _C.kind == "start",
        )
        .order_by(_C.sequence)
    )
    with records.reading() as connection:
        found = connection.execute(starts).all()
    if not found:
        return None
    times = [row.time for row in found if isinstance(row.time, int)] or [NO_TIME]
    rests = Rests(
        f"{len(found):,} records of starts, in the order of recording",
        _digest(bytes(row.hash) for row in found),
    )
    return rests, len(found), moment(min(times)), moment(max(times))


def _hashes(records: SqlRecords, ids: Sequence[str]) -> dict[str, bytes]:
    """The hashes of records by their ids, in the order of these."""
    with records.reading() as connection:
        found = {
            record_id: bytes(digest)
            for start in range(0, len(ids), 500)
            for record_id, digest in connection.execute(
                sa.select(_C.id, _C.hash).where(_C.id.in_(ids[start : start + 500]))
            )
        }
    return {record_id: found[record_id] for record_id in ids}


def _digest(hashes: Iterable[bytes]) -> str:
    """SHA-256 of hashes, one behind the other."""
    total = hashlib.sha256()
    for one in hashes:
        total.update(one)
    return total.hexdigest()


def _made(package: ModelPackage, kind: RecordKind = "decision") -> list[sa.ColumnElement[bool]]:
    return [
        _C.portfolio == package.portfolio,
        _C.model_version == package.version,
        _C.kind == kind,
    ]


def _decisions(package: ModelPackage, records: SqlRecords | None) -> Topic:
    if records is None:
        return Topic(missing=_UNRECORDED)
    counted = (
        sa.select(_C.decision, _C.policy_version, sa.func.count(), sa.func.min(_C.time))
        .add_columns(sa.func.max(_C.time))
        .where(*_made(package))
        .group_by(_C.decision, _C.policy_version)
        .order_by(_C.policy_version, _C.decision)
    )
    hashes = sa.select(_C.hash).where(*_made(package)).order_by(_C.sequence)
    with records.reading() as connection:
        groups = connection.execute(counted).all()
        streamed = connection.execution_options(yield_per=_CHUNK).execute(hashes).scalars()
        digest = _digest(bytes(one) for one in streamed)
    total = sum(number for _, _, number, _, _ in groups)
    if not total:
        return Topic(missing="The package has made no decision that is on record.")
    topic = Topic()
    approved = sum(number for decision, _, number, _, _ in groups if decision == "APPROVE")
    times = [time for g in groups for time in g[3:] if isinstance(time, int)] or [NO_TIME]
    first, last = min(times), max(times)
    topic.say(
        Rests(f"{total:,} records of decisions, in the order of recording", digest),
        f"{total:,} decisions from {moment(first)} to {moment(last)}; {approved / total:.1%} "
        "were approvals.",
    )
    topic.figures |= {"decisions on record": f"{total:,}", "approved": f"{approved / total:.1%}"}
    topic.tables.append(
        (
            ["policy", "decision", "number", "share"],
            [
                [policy, decision, f"{number:,}", f"{number / total:.1%}"]
                for decision, policy, number, _, _ in groups
            ],
        )
    )
    return topic


def _reviews(
    package: ModelPackage, records: SqlRecords | None, found: Mapping[str, Any] | str | None
) -> Topic:
    if records is None or found is None:
        return Topic(missing=_UNRECORDED)
    if isinstance(found, str):
        told = f"The reviews cannot be counted: {found}."
        return Topic(missing=told, findings=[told])
    steps = sa.select(_C.hash).where(*_made(package, "review")).order_by(_C.sequence)
    with records.reading() as connection:
        hashes = [bytes(one) for one in connection.execute(steps).scalars()]
    waiting = found["waiting_now"]
    if not hashes and not waiting:
        return Topic(missing="No decision of the package was reviewed, and none waits for it.")
    numbers = found["reviews"]
    topic = Topic(figures={"reviews closed": f"{numbers['closed']:,}"})
    topic.say(
        Rests(
            f"{len(hashes):,} records of reviews of the package's decisions, in the order of "
            "recording",
            _digest(hashes),
        ),
        f"Reviews closed: {numbers['closed']:,}, of which {numbers['approved']:,} approved and "
        f"{numbers['declined']:,} declined. Waiting for a person now: {waiting:,}.",
        f"Decisions proposed to a second person: {numbers['proposed']:,}; not agreed to: "
        f"{numbers['returned']:,}.",
    )
    if found["overrides"]:
        names = ["override", "the server said", "number", "of", "share", "reasons"]
        topic.tables.append((names, [_override(one) for one in found["overrides"]]))
    return topic


def _outcomes(package: ModelPackage, records: SqlRecords | None) -> Topic:
    if records is None:
        return Topic(missing=_UNRECORDED)
    said = sa.select(_C.hash).where(*_made(package, "outcome")).order_by(_C.sequence)
    of_package = (_O.portfolio == package.portfolio, _O.model_version == package.version)
    known = sa.select(
        sa.func.count(), sa.func.sum(_O.defaulted), sa.func.min(_O.observed)
    ).add_columns(sa.func.max(_O.observed))
    with records.reading() as connection:
        hashes = [bytes(one) for one in connection.execute(said).scalars()]
        number, defaults, first, last = connection.execute(known.where(*of_package)).one()
    if not number:
        return Topic(missing="No outcome of a decision of the package is on record.")
    topic = Topic(figures={"outcomes on record": f"{number:,}"})
    topic.say(
        Rests(
            f"{len(hashes):,} records of outcomes of the package's decisions, in the order of "
            "recording",
            _digest(hashes),
        ),
        f"Outcomes known of {number:,} decisions, observed from {first} to {last}: "
        f"{defaults:,} defaulted, {defaults / number:.2%}.",
        f"Corrections on record: {len(hashes) - number:,}.",
    )
    for watched in _watched(package, records, "performance"):
        _say_performance(topic, watched)
    return topic


@dataclass(frozen=True, slots=True)
class _Watched:
    """What the monitoring job found last of one kind: its JSON, and what states it."""

    kind: str
    body: dict[str, Any]
    rests: Rests


_UNWATCHED = "The monitoring job (python -m monitoring run) has put nothing of this on record."


def _watched(package: ModelPackage, records: SqlRecords, kind: str) -> list[_Watched]:
    """The results of one kind, or of each kind that begins with it and a colon, of the last window.

    Of windows that end together, the longest: the last days, and not today alone.
    """
    found = (
        sa.select(_M.kind, _M.time, _M.since, _M.until, _M.body)
        .where(_M.portfolio == package.portfolio, _M.model_version == package.version)
        .where(sa.or_(_M.kind == kind, _M.kind.startswith(f"{kind}:", autoescape=True)))
        .order_by(_M.kind, _M.until.desc(), _M.since)
    )
    newest: dict[str, _Watched] = {}
    with records.reading() as connection:
        for name, time, since, until, body in connection.execute(found):
            window = f"{moment(since)[:10]} to {moment(until)[:10]}"
            rests = Rests(
                f"what the monitoring job found at {moment(time)} of decisions from {window}",
                hashlib.sha256(body.encode()).hexdigest(),
            )
            newest.setdefault(name, _Watched(name, json.loads(body), rests))
    return list(newest.values())


def _say_performance(topic: Topic, watched: _Watched) -> None:
    body = watched.body
    figures, expected = body["figures"], body["expected"]
    topic.say(
        watched.rests,
        f"Of {body['accepted']:,} applications accepted, {body['coverage']:.1%} have an outcome; "
        f"{body['maturity']:.1%} had the whole outcome period.",
    )
    if figures is None:
        topic.say(watched.rests, f"No figures: {body['not_enough']}.")
    else:
        topic.tables.append(
            (
                ["figure", "observed", "low", "high", "if all PDs were true"],
                [
                    [
                        name,
                        *(_short(observed[place]) for place in ("value", "low", "high")),
                        "" if expected is None else _short(expected[name]["value"]),
                    ]
                    for name, observed in figures.items()
                ],
            )
        )
    topic.say(watched.rests, *body["caveats"])


def _drift(package: ModelPackage, records: SqlRecords | None) -> Topic:
    results = [] if records is None else _watched(package, records, "drift")
    if records is None or not results:
        return Topic(missing=_UNRECORDED if records is None else _UNWATCHED)
    topic = Topic()
    for watched in results:
        body = watched.body
        topic.figures["drift of applicants"] = body["verdict"]
        topic.say(
            watched.rests,
            f"{body['rows']:,} applicants, compared with the package's reference: "
            f"{body['verdict']}. {body['recommendation']}",
        )
        compared = [*([] if body["score"] is None else [body["score"]]), *body["fields"]]
        rows = [
            [
                one["field"],
                one["verdict"],
                _short(one["psi"]),
                "" if one["critical"] is None else _short(one["critical"]),
                "" if one["p_corrected"] is None else _short(one["p_corrected"]),
                f"{one['missing']['share']:.2%}",
            ]
            for one in compared
        ]
        heads = ["field", "verdict", "PSI", "by chance up to", "p, corrected", "missing"]
        topic.tables.append((heads, rows))
    for watched in _watched(package, records, "retraining"):
        said = f"Whether to retrain: {watched.body['verdict']}."
        topic.say(watched.rests, " ".join([said, *watched.body["reasons"]]))
    return topic


def _fairness(package: ModelPackage, records: SqlRecords | None) -> Topic:
    results = [] if records is None else _watched(package, records, "fairness")
    if records is None or not results:
        return Topic(missing=_UNRECORDED if records is None else _UNWATCHED)
    topic = Topic()
    for watched in results:
        body = watched.body
        beside = body["not_enough"] or f"The others are held against {body['reference']}."
        topic.say(
            watched.rests,
            f"By {body['attribute']}: {body['rows']:,} decisions, {body['unknown']:,} of them "
            f"without a group. {beside}",
        )
        rows = [
            [
                group["name"],
                f"{group['rows']:,}",
                *(_interval(group[name]) for name in ("approval_rate", "ratio", "difference")),
            ]
            for group in body["groups"]
        ]
        heads = ["group", "decisions", "approval rate", "ratio", "standardised difference of PD"]
        topic.tables.append((heads, rows))
    return topic


def _interval(found: Mapping[str, float] | None) -> str:
    if found is None:
        return ""
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def _override(found: Mapping[str, Any]) -> list[str]:
    """A row of how often people overrode a decision of the server in one direction."""
    return [
        found["direction"],
        found["decision"],
        f"{found['number']:,}",
        f"{found['of']:,}",
        "" if found["rate"] is None else f"{found['rate']:.2%}",
        ", ".join(f"{code} {number:,}" for code, number in found["reasons"].items()),
    ]


def _integrity(records: SqlRecords | None, found: Report | None) -> Topic:
    if records is None:
        return Topic(missing=_UNRECORDED)
    if found is None:
        return Topic(missing="The records were not verified for this pack.")
    said = [
        f"Verified: {found.records:,} records and {found.checkpoints:,} checkpoints, "
        + (
            f"with the key {', '.join(found.keys)}. "
            if found.keys
            else "their signatures NOT, for no signing key is set here. "
        )
        + ("All are as they were written." if found.whole else "They are NOT as they were written:")
    ]
    said += [str(finding) for finding in found.findings]
    said.append(
        f"Under a checkpoint: the first {found.covered:,} records. Taken by retention: "
        f"{found.taken:,}. Personal data erased of: {found.erased:,}."
    )
    with records.reading() as connection:
        heads = connection.execute(sa.select(HEAD.c.log, HEAD.c.sequence, HEAD.c.hash)).all()
    topic = Topic(figures={"records verified": f"{found.records:,}"})
    if not found.whole:
        more = f"; and {found.found - 1:,} more" if found.found > 1 else ""
        topic.findings.append(
            f"The records are not as they were written: {found.findings[0]}{more}."
        )
    if found.clocks:
        said += [f"Clocks: {told}." for told in found.clocks]
        topic.findings.append(f"Times on record cannot be right: {found.clocks[0]}.")
    if found.misqueued:
        said += [f"Queue of reviews: {difference}." for difference in found.queue[:_CASES_NAMED]]
        topic.findings.append(
            f"The queue of reviews is not what the records say, in {found.misqueued:,} cases."
        )
    if found.misrecorded:
        said += [f"Outcomes: {difference}." for difference in found.outcomes[:_CASES_NAMED]]
        topic.findings.append(
            "The table of outcomes is not what the records say, of "
            f"{found.misrecorded:,} decisions."
        )
    told = [f"the head of chain {log}, record {sequence}" for log, sequence, _ in heads]
    topic.say(
        Rests(
            " and ".join(told) or "a chain without a head",
            _digest(head for *_, head in heads) if len(heads) != 1 else bytes(heads[0].hash).hex(),
        ),
        *said,
        *(f"Note: {note}." for note in found.notes),
    )
    return topic


def _replay(package: ModelPackage, found: Comparison | None) -> Topic:
    if found is None or not found.records:
        return Topic(missing="No decision of the package was made again for this pack.")
    topic = Topic()
    verdicts = ", ".join(f"{name} {number:,}" for name, number in found.verdicts.items() if number)
    topic.say(
        _manifest(package),
        f"The newest {found.records:,} decisions on record were made again from the package, "
        f"policy and reference group that they name: {verdicts}.",
    )
    topic.figures["came out again"] = f"{found.verdicts['MATCH']:,} of {found.records:,}"
    topic.say(
        _manifest(package),
        *(
            f"{cause}: {number:,}, such as: {found.examples[cause]}."
            for cause, number in sorted(found.causes.items())
        ),
    )
    if not found.as_expected(Candidate()):
        otherwise = found.records - found.verdicts["MATCH"] - found.causes["input-erased"]
        topic.findings.append(
            f"Of the newest {found.records:,} decisions made again, {otherwise:,} did not come "
            "out as they are on record."
        )
    return topic


def _regime(regime: Regime, sha256: str) -> Topic:
    topic = Topic()
    topic.say(
        Rests(REGIME, sha256),
        f"{regime.title}, version {regime.version}, as of {regime.as_of.isoformat()}.",
        regime.caveat,
    )
    topic.tables.append(
        (
            ["source", "title", "text"],
            [[s.citation, s.title, s.url or ""] for s in regime.sources],
        )
    )
    return topic


def _plots(package: ModelPackage, *names: str) -> list[str]:
    wanted = [f"plots/{name}.png" for name in names]
    return [f"{PACKAGE}/{name}" for name in wanted if name in package.digests]


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
