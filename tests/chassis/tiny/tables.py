"""The only table. Two things may have the same name until COMMIT, but never the same e-mail address."""

import sqlalchemy as sa
from chassis.database import metadata_for

metadata = metadata_for("tiny")

things = sa.Table(
    "things",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.String(40), nullable=False),
    sa.Column("email", sa.String(80), nullable=True, unique=True),
    sa.UniqueConstraint("name", deferrable=True, initially="DEFERRED"),
)
