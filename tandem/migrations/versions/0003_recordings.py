"""Recordings."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "recordings",
        sa.Column("call", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in (
                "worker",
                "tenant",
                "agent",
                "state",
                "cause",
                "consent",
                "pauses",
                "format",
                "file",
                "sha256",
            )
        ),
        sa.Column("consent_at", sa.Double()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("duration_ms", sa.Integer()),
        sa.Column("bytes", sa.BigInteger()),
        sa.Column("keep_until", sa.Double(), nullable=False),
        sa.Column("purged_at", sa.Double()),
    )
    op.create_index("recordings_started_at", "recordings", ["started_at"])


def downgrade() -> None:
    op.drop_table("recordings")
