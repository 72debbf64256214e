"""The tables of the record database, as the newest migration leaves them."""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()
# SQLite keeps a table in the order of a key only if that is exactly INTEGER; it has 64 bits there.
_PLACE = sa.BigInteger().with_variant(sa.Integer, "sqlite")

RECORDS = sa.Table(
    "records",
    METADATA,
    # The place in the chain: 1, 2, 3 and so on, given by the writer, never by the database.
    sa.Column("sequence", _PLACE, primary_key=True, autoincrement=False),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("kind", sa.Text, nullable=False),
    # From here to `data_key` nothing is left of what retention has taken.
    sa.Column("time", sa.BigInteger),
    sa.Column("portfolio", sa.Text),
    sa.Column("request_id", sa.Text),
    sa.Column("model_version", sa.Text),
    sa.Column("policy_version", sa.Text),
    sa.Column("decision", sa.Text),
    sa.Column("status", sa.Integer),
    sa.Column("about", sa.Text),
    # Text and not the database's JSON: what is read is byte for byte what was written and hashed.
    sa.Column("body", sa.Text),
    sa.Column("sealed", sa.LargeBinary),
    sa.Column("data_key", sa.LargeBinary),
    sa.Column("previous", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.CheckConstraint(
        "(body IS NULL) = (time IS NULL) AND (body IS NULL) = (portfolio IS NULL) "
        "AND (body IS NULL) = (request_id IS NULL)",
        name="whole_or_expired",
    ),
    # In the order `find` answers in. Each costs every record about a microsecond, so there is none
    # for a decision, found soon enough among the others, and none for all portfolios at once.
    sa.Index("records_by_portfolio", "portfolio", "time", "sequence"),
    sa.Index("records_by_kind", "portfolio", "kind", "time", "sequence"),
    sa.Index("records_by_model", "portfolio", "model_version", "time", "sequence"),
)
_ABOUT = RECORDS.c.about
# Few records are about another, so the others need no place in this index.
sa.Index(
    "records_by_about",
    _ABOUT,
    RECORDS.c.sequence,
    sqlite_where=_ABOUT.is_not(None),
    postgresql_where=_ABOUT.is_not(None),
)

HEAD = sa.Table(
    "head",
    METADATA,
    # One row, and the lock that writers queue for where the database has one for each row.
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
)

CHECKPOINTS = sa.Table(
    "checkpoints",
    METADATA,
    sa.Column("number", _PLACE, primary_key=True, autoincrement=False),
    sa.Column("first", sa.BigInteger, nullable=False, unique=True),
    sa.Column("last", sa.BigInteger, nullable=False, unique=True),
    sa.Column("statement", sa.Text, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False),
)

REVIEWS = sa.Table(
    "reviews",
    METADATA,
    # Only what is open: who decides takes it out.
    sa.Column("decision_id", sa.Text, primary_key=True),
    sa.Column("portfolio", sa.Text, nullable=False),
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("holder", sa.Text),
    sa.Column("until", sa.BigInteger),
    sa.Column("proposal", sa.Text),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Index("reviews_by_time", "portfolio", "time", "decision_id"),
)

IDEMPOTENCY = sa.Table(
    "idempotency",
    METADATA,
    # Keyed digests: neither a caller's key nor what can be guessed of an application is kept.
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("claim", sa.Text, nullable=False),
    # Of a claim without an answer yet, when another may take its place; of an answer, when it goes.
    sa.Column("expires", sa.BigInteger, nullable=False),
    sa.Column("answer", sa.LargeBinary),
    sa.Index("idempotency_by_expiry", "expires"),
)

OUTCOMES = sa.Table(
    "outcomes",
    METADATA,
    # What became of a decision, as the last record about it says; an index, like the queue.
    sa.Column("decision_id", sa.Text, primary_key=True),
    sa.Column("portfolio", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("decided", sa.BigInteger, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("band", sa.Text, nullable=False),
    sa.Column("pd", sa.Double, nullable=False),
    sa.Column("defaulted", sa.Integer, nullable=False),
    sa.Column("observed", sa.Text, nullable=False),
    sa.Column("recorded", sa.BigInteger, nullable=False),
    # How many records there are about it.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Index("outcomes_by_time", "portfolio", "model_version", "decided"),
)

GROUPS = sa.Table(
    "groups",
    METADATA,
    # What no model may see: not in the chain, so that erasing it leaves nothing.
    sa.Column("decision_id", sa.Text, primary_key=True),
    sa.Column("attribute", sa.Text, primary_key=True),
    sa.Column("portfolio", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("decided", sa.BigInteger, nullable=False),
    sa.Column("decision", sa.Text, nullable=False),
    sa.Column("pd", sa.Double, nullable=False),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Index("groups_by_time", "portfolio", "attribute", "decided"),
)

POPULATIONS = sa.Table(
    "populations",
    METADATA,
    # Applicants of an hour, counted; the counts are sealed. Without them where the package that
    # decided was not there to count by, and where one of a few applicants was erased.
    sa.Column("portfolio", sa.Text, primary_key=True),
    sa.Column("model_version", sa.Text, primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("approved", sa.BigInteger, nullable=False),
    sa.Column("referred", sa.BigInteger, nullable=False),
    sa.Column("declined", sa.BigInteger, nullable=False),
    sa.Column("counts", sa.LargeBinary),
)

COUNTED = sa.Table(
    "counted",
    METADATA,
    # The last place in the chain whose decisions are in the populations.
    sa.Column("portfolio", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)

MONITORING_RESULTS = sa.Table(
    "monitoring_results",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("portfolio", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    # When it was computed, of what window: microseconds since the epoch.
    sa.Column("time", sa.BigInteger, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Index("monitoring_results_by_time", "portfolio", "kind", "time"),
)

SHADOW = sa.Table(
    "shadow",
    METADATA,
    # What a package says about an application that another one decided about; an index, like the
    # outcomes: what is needed of the decision is beside it.
    sa.Column("decision_id", sa.Text, primary_key=True),
    sa.Column("model_version", sa.Text, primary_key=True),
    sa.Column("portfolio", sa.Text, nullable=False),
    sa.Column("decided_by", sa.Text, nullable=False),
    sa.Column("decided", sa.BigInteger, nullable=False),
    sa.Column("made_pd", sa.Double, nullable=False),
    sa.Column("made_decision", sa.Text, nullable=False),
    sa.Column("made_band", sa.Text, nullable=False),
    sa.Column("made_reason", sa.Text),
    # From here on of the package that was only asked; without a PD there is an error.
    sa.Column("pd", sa.Double),
    sa.Column("decision", sa.Text),
    sa.Column("band", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("error", sa.Text),
    # Of a core, and those of the package that decided, where it was timed on the same rows.
    sa.Column("seconds", sa.Double),
    sa.Column("made_seconds", sa.Double),
    sa.Index("shadow_by_time", "portfolio", "model_version", "decided_by", "decided"),
)

SHADOWING = sa.Table(
    "shadowing",
    METADATA,
    # How far the challenger of a portfolio is, and the lock of who writes what it says.
    sa.Column("portfolio", sa.Text, primary_key=True),
    sa.Column("challenge", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    # The last place in the chain whose decision it was asked about.
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("skipped", sa.BigInteger, nullable=False),
    # How often its process ended, and within what places when it did last.
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("cause", sa.Text),
    sa.Column("lost_first", sa.BigInteger),
    sa.Column("lost_last", sa.BigInteger),
    # Who is at it, and until when others leave it alone.
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)

LAST_PLACE: sa.Select[int] = sa.select(sa.func.coalesce(sa.func.max(HEAD.c.sequence), 0))
"""The place of the last record in the chain, 0 where there is none."""

_R = RECORDS.c
# By place and by nothing else: to a planner, the index of a portfolio's decisions looks as good,
# and would be read whole, and sorted, for each few thousand of them.
DECISIONS_BEHIND = (
    sa.select(*(_R.sequence, _R.id, _R.time, _R.model_version, _R.decision, _R.body))
    .add_columns(_R.sealed, _R.data_key)
    .where(_R.sequence > sa.bindparam("after"), _R.portfolio.concat("") == sa.bindparam("of"))
    .where(_R.kind == "decision")
    .order_by(_R.sequence)
)
"""The decisions of a portfolio (``of``) behind a place in the chain (``after``), in its order."""
