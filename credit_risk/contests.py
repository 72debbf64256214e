"""What is on record of champion and challenger, brought together to be compared.

Pairs are made of what was decided and what the other one said of it (`credit_risk.shadowing`), the
newest first where there are more than can be looked at; outcomes and groups are those of the same
decisions. The statistics are in `credit_risk.challenger`. Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from credit_risk import challenger, groups, shadowing
from credit_risk.audit.records import moment
from credit_risk.audit.tables import GROUPS, OUTCOMES, SHADOW
from credit_risk.challenger import Contest, CutOffs, Grouped, Known, Pairs, Side
from credit_risk.policy import BAND_ORDER, SEVERITY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credit_risk.audit.keys import Sealing
    from credit_risk.audit.log import SqlRecords
    from credit_risk.package import ModelPackage
    from credit_risk.windows import Window

    Rows = Sequence[Any]

PAIRS_MOST = 200_000
"""Decisions that are compared, the newest."""
OUTCOMES_MOST = 20_000
"""Of those with an outcome, whose intervals take a while."""
GROUPS_MOST = 50_000
"""Of those with a group, each of which is decrypted."""
NAMES_MOST = 50
"""More groups than this are none: an attribute has few values."""

_S = SHADOW.c
_MADE = ("made_pd", "made_decision", "made_band", "made_reason", "made_seconds")
_SAID = ("pd", "decision", "band", "reason", "seconds")
_BANDS = {name: place for place, name in enumerate(BAND_ORDER)}


def contest(
    records: SqlRecords,
    champion: ModelPackage,
    other: ModelPackage,
    *,
    window: Window | None = None,
    outcomes: Window | None = None,
    groups_sealing: Sealing | None = None,
    seed: int = 0,
) -> Contest:
    """Compare a challenger with a champion, by what is on record.

    Args:
        records: where it is read.
        champion: the package that decides.
        other: the challenger.
        window: of these decisions; None is all.
        outcomes: of these the outcomes; None is those of ``window``.
        groups_sealing: what opens groups; without it nothing is said of fairness.
        seed: of the bootstraps.

    Raises:
        RecordingFailed: the database fails.
        EvidenceInvalid: a group was altered.
    """
    asked = _asked(champion, other, window)
    columns = [_S[name] for name in ("model_version", "error", *_MADE, *_SAID)]
    rows = _read(records, asked.with_only_columns(*columns).limit(PAIRS_MOST))
    found = shadowing.state(records, champion.portfolio)
    skipped = found.skipped if found is not None and found.model_version == other.version else 0
    return challenger.compare(
        champion.version,
        other.version,
        _pairs(rows, other.version, skipped),
        CutOffs(champion.policy.cut_off, other.policy.cut_off),
        known=_known(records, _asked(champion, other, outcomes or window), columns, other.version),
        grouped=[*_grouped(records, asked, columns, other.version, groups_sealing)],
        seed=seed,
    )


def told(
    records: SqlRecords,
    champion: ModelPackage,
    other: ModelPackage,
    *,
    window: Window | None = None,
    groups_sealing: Sealing | None = None,
) -> dict[str, Any]:
    """The same as JSON, with what it is of: see `contest`.

    Of a window nothing is said of groups: two of them that differ by one applicant would tell who
    that is, see `credit_risk.windows.apart`.
    """
    sealing = groups_sealing if window is None else None
    found = contest(records, champion, other, window=window, groups_sealing=sealing)
    return {
        "portfolio": champion.portfolio,
        "from": None if window is None else moment(window.since),
        "to": None if window is None else moment(window.until),
        **found.model_dump(mode="json"),
    }


def outside(
    records: SqlRecords, champion: ModelPackage, other: ModelPackage, window: Window
) -> int:
    """How many decisions either was asked about that are not of a window.

    Raises:
        RecordingFailed: the database fails.
    """
    asked = _asked(champion, other, None).order_by(None).with_only_columns(sa.func.count())
    beyond = sa.or_(_S.decided < window.since, _S.decided >= window.until)
    number: int = _read(records, asked.where(beyond))[0][0]
    return number


def _asked(champion: ModelPackage, other: ModelPackage, window: Window | None) -> sa.Select[Any]:
    """What either of the two said of what the other one decided, the newest first."""
    of = [
        sa.and_(_S.model_version == one.version, _S.decided_by == two.version)
        for one, two in ((other, champion), (champion, other))
    ]
    asked = sa.select(SHADOW).where(_S.portfolio == champion.portfolio, sa.or_(*of))
    if window is not None:
        asked = asked.where(_S.decided >= window.since, _S.decided < window.until)
    return asked.order_by(_S.decided.desc(), _S.decision_id)


def _known(
    records: SqlRecords, asked: sa.Select[Any], columns: Sequence[Any], version: str
) -> Known:
    """The pairs whose outcome is known."""
    joined = asked.join(OUTCOMES, OUTCOMES.c.decision_id == _S.decision_id)
    rows = _read(
        records,
        joined.with_only_columns(*columns, OUTCOMES.c.defaulted)
        .where(_S.error.is_(None))
        .limit(OUTCOMES_MOST),
    )
    defaulted = np.array([row.defaulted for row in rows], dtype=np.int64)
    return Known(_pairs(rows, version), defaulted)


def _grouped(
    records: SqlRecords,
    asked: sa.Select[Any],
    columns: Sequence[Any],
    version: str,
    sealing: Sealing | None,
) -> Iterator[Grouped]:
    """The pairs whose applicants' groups are known, by attribute."""
    if sealing is None:
        return
    joined = asked.join(GROUPS, GROUPS.c.decision_id == _S.decision_id).where(_S.error.is_(None))
    attributes = joined.with_only_columns(GROUPS.c.attribute).order_by(None).distinct()
    for attribute in sorted(row[0] for row in _read(records, attributes)):
        rows = _read(
            records,
            joined.with_only_columns(*columns, _S.decision_id, GROUPS.c.sealed)
            .where(GROUPS.c.attribute == attribute)
            .limit(GROUPS_MOST),
        )
        names: dict[str, int] = {}
        codes, kept = [], []
        for row in rows:
            name = groups.opened(sealing, row.decision_id, attribute, row.sealed)
            if name is not None:
                kept.append(row)
                codes.append(names.setdefault(name, len(names)))
        if len(names) <= NAMES_MOST:
            pairs = _pairs(kept, version)
            yield Grouped(attribute, pairs, np.array(codes, dtype=np.int64), [*names])


def _read(records: SqlRecords, asked: sa.Select[Any]) -> Rows:
    with records.reading() as connection:
        return connection.execute(asked).all()


def _pairs(rows: Rows, version: str, skipped: int = 0) -> Pairs:
    """The rows as pairs; ``version`` is the challenger's."""
    answered = [row for row in rows if row.error is None]
    # Of what the challenger decided, the champion is the one who was asked.
    canary = [row.model_version != version for row in answered]
    failed = [(row.model_version, row.error) for row in rows if row.error is not None]
    return Pairs(
        champion=_side(answered, [_SAID if theirs else _MADE for theirs in canary]),
        challenger=_side(answered, [_MADE if theirs else _SAID for theirs in canary]),
        canary=np.array(canary, dtype=np.bool_),
        champion_errors=Counter(error for by, error in failed if by != version),
        challenger_errors=Counter(error for by, error in failed if by == version),
        skipped=skipped,
    )


def _side(rows: Rows, names: Sequence[Sequence[str]]) -> Side:
    """One side of the pairs, whose columns are called so in each row."""
    taken = [
        [getattr(row, name) for name in called] for row, called in zip(rows, names, strict=True)
    ]
    pds, decisions, bands, reasons, seconds = zip(*taken, strict=True) if taken else ((),) * 5
    return Side(
        pds=np.array(pds, dtype=np.float64),
        decisions=np.array([SEVERITY[one] for one in decisions], dtype=np.int64),
        bands=np.array([_BANDS[one] for one in bands], dtype=np.int64),
        reasons=np.array([one or "" for one in reasons], dtype=np.str_),
        seconds=np.array(seconds, dtype=np.float64),
    )
