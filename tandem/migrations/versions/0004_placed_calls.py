"""Calls that we place: direction, who answered, and who must not be called."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("calls", sa.Column("direction", sa.Text(), nullable=False, server_default="in"))
    op.add_column("calls", sa.Column("answered_by", sa.Text()))
    op.add_column("calls", sa.Column("answer_rule", sa.Text()))
    op.add_column("calls", sa.Column("detected_ms", sa.Integer()))
    op.add_column("calls", sa.Column("joined_ms", sa.Integer()))
    op.create_table(
        "do_not_call",
        sa.Column("number", sa.Text(), primary_key=True),
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("added_at", sa.Double(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("do_not_call")
    for column in ("joined_ms", "detected_ms", "answer_rule", "answered_by", "direction"):
        op.drop_column("calls", column)
