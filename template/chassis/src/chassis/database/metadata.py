"""The SQLAlchemy metadata of a service's tables. The chassis' tables (outbox, inbox, parked) are in migrations/versions/."""

from sqlalchemy import MetaData

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
"""Names for all constraints, so that a migration can drop a constraint by its name."""


def metadata_for(schema: str) -> MetaData:
    """Make the registry of a service's tables, which are all in the service's own Postgres schema.

    A table names its columns that only the previous version still uses: `sa.Table(..., info={"leaving": ["note"]})`.
    The metadata names such tables: `metadata.info["leaving"] = ["refunds"]`. The gate and `make migration` ignore both.
    """
    return MetaData(schema=schema, naming_convention=NAMING_CONVENTION)
