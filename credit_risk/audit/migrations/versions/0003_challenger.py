"""What a challenger says about the applications that others decide about, and how far it is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of challengers; what was recorded stays as it is."""
    op.create_table(
        "shadow",
        sa.Column("decision_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("portfolio", sa.Text(), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("decided", sa.BigInteger(), nullable=False),
        sa.Column("made_pd", sa.Double(), nullable=False),
        sa.Column("made_decision", sa.Text(), nullable=False),
        sa.Column("made_band", sa.Text(), nullable=False),
        sa.Column("made_reason", sa.Text(), nullable=True),
        sa.Column("pd", sa.Double(), nullable=True),
        sa.Column("decision", sa.Text(), nullable=True),
        sa.Column("band", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("made_seconds", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("decision_id", "model_version"),
    )
    op.create_index(
        "shadow_by_time",
        "shadow",
        ["portfolio", "model_version", "decided_by", "decided"],
        unique=False,
    )
    op.create_table(
        "shadowing",
        sa.Column("portfolio", sa.Text(), nullable=False),
        sa.Column("challenge", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=True),
        sa.Column("lost_first", sa.BigInteger(), nullable=True),
        sa.Column("lost_last", sa.BigInteger(), nullable=True),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("portfolio"),
    )


def downgrade() -> None:
    """An earlier version refuses this one's tables; a backup from before the upgrade is for it."""
    raise NotImplementedError("what challengers said is not thrown away by a command for schemas")
