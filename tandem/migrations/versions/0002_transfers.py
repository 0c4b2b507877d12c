"""Of transfers: who answered, and whether the agent had been heard out."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("transfers") as transfers:
        transfers.add_column(sa.Column("answered_by", sa.Text()))
        transfers.add_column(sa.Column("heard", sa.Boolean(), nullable=False, server_default=sa.true()))
