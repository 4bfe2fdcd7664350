"""Where a service registers its tables. The chassis' own tables are in migrations/versions/."""

from sqlalchemy import MetaData

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
}
"""Every constraint has a name that a migration can drop it by."""


def metadata_for(schema: str) -> MetaData:
    """Where a service registers its tables: all of them in its own Postgres schema.

    Columns that the code no longer uses, but the version before still does, are named by their table:
    `sa.Table(..., info={"leaving": ["note"]})`. As long as they are, the gate and `make migration` leave them alone.
    """
    return MetaData(schema=schema, naming_convention=NAMING_CONVENTION)
