"""What a package shows of itself, by its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from credit_risk import scoring
from credit_risk.errors import ExplanationFailed, PackageInvalid
from credit_risk.evidence.folders import PACKAGE, REGIME
from credit_risk.evidence.topics import Rests, Topic, file_of, manifest_of, short

if TYPE_CHECKING:
    from credit_risk.package import ModelPackage
    from credit_risk.regimes import Regime

_UNEVALUATED = "The package holds no evaluation on rows held out."


def card(package: ModelPackage) -> Topic:
    """Its card."""
    topic = Topic()
    topic.say(
        file_of(package, "card.md"),
        "The card says what the model is for and what it is not, its limits, data, training, "
        "performance and reasons.",
    )
    topic.say(
        manifest_of(package),
        f"The package holds data and no code; its version, {package.version}, is derived from "
        "its files, which the manifest names with their digests.",
    )
    return topic


def provenance(package: ModelPackage) -> Topic:
    """Where its data are from, and what was left out of them."""
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
    topic.say(file_of(package, "provenance.json"), *said)
    return topic


def performance(package: ModelPackage) -> Topic:
    """How well it tells rows apart that were held out."""
    found = _hold_out(package)
    if found is None:
        return Topic(missing=_UNEVALUATED)
    topic = Topic(images=_plots(package, "roc", "ks", "scores"))
    topic.say(
        file_of(package, "metrics.json"),
        f"On {found['rows']:,} rows that it was not fitted to, {found['defaults']:,} of them "
        f"defaults: ROC-AUC {found['roc_auc']:.4f}, Gini {found['gini']:.4f}, "
        f"KS {found['ks']:.4f}.",
    )
    topic.figures["ROC-AUC, held out"] = f"{found['roc_auc']:.4f}"
    shares = ", ".join(f"{name} {share:.1%}" for name, share in sorted(found["decisions"].items()))
    topic.say(file_of(package, "metrics.json"), f"Decisions on these rows: {shares}.")
    return topic


def calibration(package: ModelPackage) -> Topic:
    """How true its PDs are on rows held out, and by band."""
    found = _hold_out(package)
    if found is None:
        return Topic(missing=_UNEVALUATED)
    topic = Topic(images=_plots(package, "calibration"))
    topic.say(
        file_of(package, "metrics.json"),
        f"Brier score {found['brier']:.4f}; expected calibration error "
        f"{found['ece_equal_count']:.4f} in bins of equal count, "
        f"{found['ece_equal_width']:.4f} in bins of equal width.",
    )
    names = ["band", "decision", "rows", "mean_pd", "default_rate"]
    rows = [[short(band[name]) for name in names] for band in found["bands"]]
    topic.tables.append((["band", "decision", "rows", "mean PD", "default rate"], rows))
    return topic


def reasons(package: ModelPackage) -> Topic:
    """How reasons are made, how faithful they are, and whether its golden records come out."""
    topic = Topic()
    topic.say(
        file_of(package, "explanation.npz")
        if "explanation.npz" in package.digests
        else file_of(package, "reference.npz"),
        f"Method: {package.model.method}, in log-odds, against {package.model.reference_rows:,} "
        f"applicants of the group {package.provenance.reference.name}.",
        "Contributions are added up with the base value and compared with the score on every "
        "decision; a difference above 1e-6 fails the request.",
    )
    topic.say(
        file_of(package, "reasons.yaml"),
        f"Approved wording of {len(package.reasons.texts)} reasons, version "
        f"{package.reasons.version}.",
    )
    fidelity = package.metrics.get("fidelity")
    if fidelity is not None:
        topic.say(
            file_of(package, "metrics.json"),
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
        file_of(package, "golden.json"),
        f"The package has {len(package.golden)} golden records with their answers. {golden}",
    )
    return topic


def policy(package: ModelPackage) -> Topic:
    """Its policy: bands and rules."""
    topic = Topic()
    topic.say(
        file_of(package, "policy.yaml"),
        f"Policy {package.policy_version}: {len(package.policy.bands)} bands, "
        f"{len(package.policy.rules)} rules.",
    )
    topic.tables.append(
        (
            ["band", "PD from", "PD below", "decision"],
            [[b.name, short(b.lower), short(b.upper), b.decision] for b in package.policy.bands],
        )
    )
    if package.policy.rules:
        rows = [[rule.name, rule.kind, rule.reason] for rule in package.policy.rules]
        topic.tables.append((["rule", "kind", "reason"], rows))
    return topic


def regime(law: Regime, sha256: str) -> Topic:
    """The regime in force, with its sources."""
    topic = Topic()
    topic.say(
        Rests(REGIME, sha256),
        f"{law.title}, version {law.version}, as of {law.as_of.isoformat()}.",
        law.caveat,
    )
    topic.tables.append(
        (
            ["source", "title", "text"],
            [[s.citation, s.title, s.url or ""] for s in law.sources],
        )
    )
    return topic


def _hold_out(package: ModelPackage) -> dict[str, Any] | None:
    found: dict[str, Any] | None = package.metrics.get("hold_out")
    return found


def _plots(package: ModelPackage, *names: str) -> list[str]:
    wanted = [f"plots/{name}.png" for name in names]
    return [f"{PACKAGE}/{name}" for name in wanted if name in package.digests]
