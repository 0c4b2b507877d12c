"""Of transfers: what the agent said of the caller, and the key by which a screen-pop finds it."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("transfers") as transfers:
        transfers.add_column(sa.Column("reason", sa.Text(), nullable=False, server_default=""))
        transfers.add_column(sa.Column("summary", sa.Text(), nullable=False, server_default=""))
        transfers.add_column(sa.Column("key_digest", sa.Text()))
        transfers.add_column(sa.Column("key_expires_at", sa.Double()))
        transfers.create_index("transfers_key", ["key_digest"])
