"""Migrations are read as SQL, and their code can have no other effect."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleet.judges.squawk import PROGRAM

BEGINNING = """
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql
revision = "0002"
"""
UPGRADE = f"{BEGINNING}\ndef upgrade():\n    "

# Each of these lines either runs something, or finds out that a judge reads it. `PROOF` stands for the path of a file.
HARMFUL = {
    "a module of Python": "import os; os.system('touch PROOF')",
    "a module of Python, imported from": "from pathlib import Path; Path('PROOF').touch()",
    "the service's code": "from billing.domain import invoices",
    "a relative import": "from . import harm",
    "a file": "open('PROOF', 'w')",
    "eval": "eval('1')",
    "getattr": "getattr(sa, 'util')",
    "the classes of Python": "().__class__.__base__.__subclasses__()",
    "a format with attributes": "'{0.__class__}'.format(sa)",
    "a module that SQLAlchemy imports": "sa.util.os.system('touch PROOF')",
    "a module that SQLAlchemy imports, imported from": "from sqlalchemy import util",
    "a submodule of SQLAlchemy": "import sqlalchemy.util.langhelpers",
    "a database": "sa.create_engine('sqlite:///PROOF').connect()",
    "a database, imported from": "from sqlalchemy import create_engine",
    "a driver of PostgreSQL": "postgresql.dialect().connect('127.0.0.1')",
    "a pickle": "sa.PickleType().pickler.loads(b'x')",
    "the connection": "op.get_bind()",
    "whether there is a database": "op.execute('SELECT 1' if op.get_context().as_sql else 'DROP TABLE billing.invoices')",
    "the connection of a batch": "with op.batch_alter_table('x') as batch:\n        batch.get_bind()",
    "coroutines": "op.run_async(upgrade)",
    "an operation of its own": "op.register_operation('harm')",
    "a lambda that SQLAlchemy takes apart": "sa.select(sa.text('1')).where(lambda: 1)",
    "a function that SQLAlchemy takes apart": "sa.select(sa.text('1')).where(upgrade)",
    "a statement by a lambda": "sa.lambda_stmt(upgrade)",
    "hooks of SQLAlchemy": "sa.Table('x', sa.MetaData()).dispatch.before_create",
    "a class": "class Harm(sa.types.UserDefinedType): pass",
    "a change of SQLAlchemy": "sa.text = None",
    "a refusal that is caught": "try:\n        open('PROOF', 'w')\n    except Exception:\n        pass",
    "the day": "from datetime import date\n    op.execute(str(date.today()))",
    "a guard, replaced": "global _getattr_\n    _getattr_ = max",
    "a guard, imported over": "from sqlalchemy import text as _getattr_",
    "a pattern that reads attributes": "match sa:\n        case object(util=util): util.os.system('touch PROOF')",
    "a frame": "(one for one in [1]).gi_frame",
    "more memory than there is": "'x' * 10**12",
    "a pickle that a type reads": "load = sa.PickleType().result_processor(sa.func, None)\n    load(b'cposix\\nsystem\\n(S\"touch PROOF\"\\ntR.')",
    "a driver, by a URL": "sa.URL('postgresql', 'u', 'p', 'h', 1, 'd', {}).get_dialect()",
    "a compiler": "sa.text('1').compile()",
    "a dialect of a type": "sa.Text().dialect_impl(None)",
    "an attribute of a class": "sa.Enum.process",
    "the day, by a value": "from datetime import date\n    op.execute(str(date(2026, 1, 1).today()))",
    "the zone of this machine": "from datetime import datetime\n    op.execute(str(datetime(2026, 1, 1).timestamp()))",
    "a function as text": "op.execute(str(upgrade))",
    "a function as part of a text": "op.execute(f'{[upgrade]!r}')",
    "a module as text": "op.execute(str(sa))",
    "an annotation that runs": "def helper(a: op.execute('DROP TABLE a')): pass",
    "an annotation of a return value that runs": "def helper() -> op.execute('DROP TABLE a'): pass",
    "an annotation of a variable that runs": "pass\nx: op.execute('DROP TABLE a') = 1",
    "an annotation of a part that runs": "pass\n[1][op.execute('DROP TABLE a')]: int",
    "an annotation that assigns": "def helper(a: (x := 1)): pass",
    "a decorator": "@op.f\n    def helper(): pass",
    "a hook of a table": "op.create_table('x', listeners=[('before_create', upgrade)])",
    "a hook of a table, hidden": "op.create_table('x', listeners=(one for one in [('before_create', upgrade)]))",
    "a default that only a connection calls": "sa.table('x', sa.Column('a', sa.Text, default=upgrade))",
    "a default that only a connection calls, by its class": "sa.ColumnDefault(upgrade)",
    "a parameter that only a connection computes": "op.execute(sa.text('SELECT :x').bindparams(sa.bindparam('x', callable_=upgrade)))",
    "what nobody has imported here": "op.execute(str(sa.dialects.sqlite is None))",
    "a function, deep in a list": "a = [upgrade]\n    for _ in range(50): a = [a]\n    sa.Column('x', sa.Text, info=a)",
    "another schema, in production only": "op.execute('DELETE FROM x', execution_options={'schema_translate_map': {None: 'billing'}})",
    "a deep expression": "x = " + "(" * 5000 + ")" * 5000,
}


def read(folder: Path, *migrations: str, **environment: str) -> list[dict[str, Any]]:
    files = [folder / f"{number:04}.py" for number, _ in enumerate(migrations)]
    for file, text in zip(files, migrations, strict=True):
        file.write_text(text)
    command = [sys.executable, "-I", PROGRAM, str(folder / "out.json"), *map(str, files)]
    subprocess.run(command, check=True, env={"PATH": os.defpath, **environment}, cwd=folder, timeout=120)
    return list(json.loads((folder / "out.json").read_text()).values())


@pytest.mark.slow
def test_a_migration_that_does_more_than_build_sql_is_refused_and_does_nothing(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    made = read(tmp_path, *(UPGRADE + harm.replace("PROOF", str(proof)) + "\n" for harm in HARMFUL.values()))
    assert [name for name, one in zip(HARMFUL, made, strict=True) if not one["error"]] == []
    assert [one["statements"] for one in made if one["statements"]] == []
    assert not proof.exists()
    assert (
        made[0]["error"] == "it imports os, and may import only alembic, sqlalchemy, and plain values such as datetime"
    )
    assert made[0]["line"] == 8


@pytest.mark.slow
def test_a_migration_that_acts_on_import_is_refused_too(tmp_path: Path) -> None:
    (one,) = read(tmp_path, f"import subprocess\n{UPGRADE}pass\n")
    assert (one["line"], one["error"].partition(",")[0]) == (1, "it imports subprocess")


BEGINNINGS = [b"# coding: utf-7\n", b"\r# coding: utf-7\n", b'"""x"""  # coding: utf-7\n']


@pytest.mark.slow
def test_a_comment_that_python_reads_as_code_is_no_comment(tmp_path: Path) -> None:
    migrations = [tmp_path / f"{number}.py" for number in range(len(BEGINNINGS))]
    for migration, beginning in zip(migrations, BEGINNINGS, strict=True):
        migration.write_bytes(beginning + f"{UPGRADE}pass\n    # +AAo-    op.execute('DROP TABLE a')\n".encode())
    command = [sys.executable, "-I", PROGRAM, str(tmp_path / "out.json"), *map(str, migrations)]
    subprocess.run(command, check=True, timeout=120)
    found = json.loads((tmp_path / "out.json").read_text()).values()
    for migration, one in zip(migrations, found, strict=True):
        is_code = "DROP TABLE" in ast.dump(ast.parse(migration.read_bytes()))
        assert one["error"] == (
            "SyntaxError: it declares the coding utf-7, and may declare only UTF-8" if is_code else ""
        )


@pytest.mark.slow
def test_a_module_is_the_same_for_every_importer_and_a_column_may_have_any_name(tmp_path: Path) -> None:
    (one,) = read(
        tmp_path,
        f"import sqlalchemy as other\n{UPGRADE}op.execute(str((sa == other, sa.dialects.postgresql == postgresql)))\n"
        "    op.execute(sa.table('x', sa.column('call')).update().values(call=None))\n",
    )
    assert (one["error"], one["statements"][0][0].strip()) == ("", "(True, True);")


@pytest.mark.slow
def test_a_list_grows_under_all_of_its_names(tmp_path: Path) -> None:
    (one,) = read(
        tmp_path, f"{UPGRADE}a = b = []\n    a += ['DROP TABLE a']\n    for sql in b:\n        op.execute(sql)\n"
    )
    assert [sql.strip() for sql, _ in one["statements"]] == ["DROP TABLE a;"]


# Each of these lines uses a possible hole in the guards.
WALLED = {
    "a file": "open('PROOF', 'w')",
    "a program": "os.system('touch PROOF')",
    "a folder": "os.mkdir('PROOF')",
    "a socket": "socket.socket()",
    "a program of its own": "subprocess.run(['touch', 'PROOF'])",
    "a pickle": "pickle.loads(b'cposix\\nsystem\\n(S\"touch PROOF\"\\ntR.')",
    "a library": "ctypes.CDLL(None)",
    "a module": "import antigravity",
    "eval": "eval('1')",
    "a refusal that is caught": "try: open('PROOF', 'w')\nexcept Exception: pass",
}


@pytest.mark.slow
def test_python_refuses_code_that_passes_a_hole_in_the_guards(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    files = {name: tmp_path / f"{number}.py" for number, name in enumerate(WALLED)}
    for name, file in files.items():
        file.write_text(f"{UPGRADE}hole('{name}')\n")
    program = f"""
import ctypes, os, pickle, socket, subprocess, sys
sys.path.insert(0, {str(Path(PROGRAM).parents[2])!r})
from fleet.judges.migration_sql import guards, program, wall
codes = {{name: compile(code.replace("PROOF", {str(proof)!r}), name, "exec") for name, code in {WALLED!r}.items()}}
guards.NAMESPACE["hole"] = guards.Function(lambda name: exec(codes[name]))
wall.Wall.HARMLESS |= {{"exec"}}
program.main({str(tmp_path / "out.json")!r}, {list(map(str, files.values()))!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    made = dict(zip(WALLED, json.loads((tmp_path / "out.json").read_text()).values(), strict=True))
    assert [name for name, one in made.items() if not one["error"].startswith("it does ")] == []
    assert not proof.exists()


@pytest.mark.slow
def test_a_migration_that_never_ends_is_given_up(tmp_path: Path) -> None:
    migration = tmp_path / "0002.py"
    migration.write_text(f"{UPGRADE}while True: pass\n")
    command = [sys.executable, "-I", PROGRAM, str(tmp_path / "out.json"), str(migration)]
    # The limit of fleet is longer, but a shorter limit of the shell applies.
    done = subprocess.run(["sh", "-c", 'ulimit -t 2; exec "$@"', "sh", *command], timeout=120)
    assert done.returncode < 0


WRITTEN_WELL = """
from __future__ import annotations
from collections.abc import Sequence
from datetime import date
from typing import Union

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: Union[str, Sequence[str], None] = "0001"
_TABLES = {"lines": ["a", "b"]}


def _index(table: str, *columns: str, unique: bool = False) -> None:
    op.create_index(f"ix_{table}", table, list(columns), schema="billing", unique=unique)


def upgrade() -> None:
    identity = sa.Column("id", sa.Uuid, primary_key=True)
    made = sa.Column("made", sa.DateTime(timezone=True), server_default=sa.func.now())
    op.create_table("lines", identity, made, sa.Column("more", postgresql.JSONB()), schema="billing")
    for table, columns in _TABLES.items():
        _index(table, *columns, unique=True)
    table = sa.table("lines", sa.column("id", sa.Text), sa.column("day", sa.Date), schema="billing")
    op.execute(table.update().where(table.c.id == "x").values(day=None))
    op.execute(postgresql.insert(table).values(id="1").on_conflict_do_nothing())
    op.bulk_insert(table, [{"id": str(number), "day": date(2026, 1, number + 1)} for number in range(2)])
    with op.get_context().autocommit_block():
        op.execute(" ".join(["ANALYZE", "billing.lines"]))
"""


@pytest.mark.slow
def test_a_migration_may_use_functions_loops_and_values_of_its_own(tmp_path: Path) -> None:
    (one,) = read(tmp_path, WRITTEN_WELL)
    assert one["error"] == ""
    told = [" ".join(sql.split()) for sql, _ in one["statements"]]
    assert told == [
        "CREATE TABLE billing.lines ( id UUID NOT NULL, made TIMESTAMP WITH TIME ZONE DEFAULT now(), more JSONB, "
        "PRIMARY KEY (id) );",
        "CREATE UNIQUE INDEX ix_lines ON billing.lines (a, b);",
        "UPDATE billing.lines SET day=NULL::DATE WHERE billing.lines.id = NULL::VARCHAR;",
        "INSERT INTO billing.lines (id) VALUES (NULL::VARCHAR) ON CONFLICT DO NOTHING;",
        "INSERT INTO billing.lines (id, day) VALUES ('0', '2026-01-01');",
        "INSERT INTO billing.lines (id, day) VALUES ('1', '2026-01-02');",
        "COMMIT;",
        "ANALYZE billing.lines;",
        "BEGIN;",
    ]
