"""Calls, turns, tool calls, transfers and timings."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "calls",
        sa.Column("id", sa.Text(), primary_key=True),
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("worker", "trunk", "tenant", "caller", "number", "agent", "verified", "codec", "sip_call_id")
        ),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.Column("outcome", sa.Text()),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("sip_status", sa.Integer()),
        sa.Column("transferred_to", sa.Text()),
    )
    op.create_index("calls_started_at", "calls", ["started_at"])
    live = sa.text("outcome IS NULL")
    op.create_index("calls_live", "calls", ["worker"], postgresql_where=live, sqlite_where=live)
    op.create_table(
        "turns",
        sa.Column("call", sa.Text(), primary_key=True),
        sa.Column("item", sa.Text(), primary_key=True),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("heard_ms", sa.Integer()),
        sa.Column("interrupted", sa.Boolean(), nullable=False),
    )
    op.create_table(
        "tool_calls",
        sa.Column("call", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("status", sa.Text(), nullable=False),
    )
    op.create_table(
        "transfers",
        sa.Column("call", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text()),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("sip_status", sa.Integer()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
    )
    op.create_table(
        "timings",
        sa.Column("call", sa.Text(), primary_key=True),
        sa.Column("item", sa.Text(), primary_key=True),
        sa.Column("kind", sa.Text(), primary_key=True),
        *(
            sa.Column(name, sa.Double())
            for name in ("speech_ended_at", "committed_at", "first_model_audio_at", "first_audio_out_at")
        ),
        *(sa.Column(name, sa.Integer()) for name in ("response_ms", "cut_ms", "heard_ms")),
    )


def downgrade() -> None:
    for table in ("timings", "transfers", "tool_calls", "turns", "calls"):
        op.drop_table(table)
