"""Writes docs/reference/chassis.md from the chassis' docstrings: `python docs/generate_chassis.py`."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TypeGuard

ROOT = Path(__file__).resolve().parent.parent
CHASSIS = ROOT / "template" / "chassis" / "src" / "chassis"
PAGE = ROOT / "docs" / "reference" / "chassis.md"

INTRODUCTION = """# Chassis

<!-- Written from the docstrings in template/chassis by docs/generate_chassis.py. Do not edit. -->

What a service's code may use of `chassis`. What is not here is internal, and may change with any update. A change of
what is here is in the [changelog](../../CHANGELOG.md)."""


def page() -> str:
    """The page as it should be."""
    parts = [INTRODUCTION, *(part for name in public_modules() for part in module(name))]
    return "\n\n".join(filter(None, parts)) + "\n"


def public_modules() -> list[str]:
    """The modules that the package's docstring lists, in its order."""
    return re.findall(r"^(\w+)  +\S", ast.get_docstring(parse("__init__")) or "", re.MULTILINE)


def file(module: str, chassis: Path = CHASSIS) -> Path:
    """The file of a module, or of a package its `__init__`."""
    path = chassis.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def parse(module: str) -> ast.Module:
    return ast.parse(file(module).read_text())


def module(name: str) -> Iterator[str]:
    tree = parse(name)
    yield from (f"## chassis.{name}", ast.get_docstring(tree) or "")
    for node, text in [*exported_from_others(tree), *with_text(tree.body)]:
        match node:
            case ast.ClassDef(name=title) if text:
                bases = ", ".join(map(ast.unparse, node.bases))
                yield from (f"### `class {title}({bases})`".replace("()", ""), text, "\n".join(members(node)))
            case ast.FunctionDef(name=title) | ast.AsyncFunctionDef(name=title) if text:
                yield from (f"### `{title}`", f"```python\n{signature(node)}\n```", text)
            case ast.Assign(targets=[ast.Name(id=title)], value=value) if re.match("[A-Z].*[a-z]", title):
                yield from (f"### `{title} = {kind(value)}`", text)
            case ast.Assign(targets=[ast.Name(id=title)]) | ast.AnnAssign(target=ast.Name(id=title)) if text:
                yield from (f"### `{title}`", text)


def exported_from_others(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Everything the module imports from internal modules to export it as its own: the names in its `__all__`."""
    exported = {name for node in tree.body if is_all(node) for name in ast.literal_eval(node.value)}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("chassis."):
            names = exported & {alias.name for alias in node.names}
            found = with_text(parse(node.module.removeprefix("chassis.")).body) if names else ()
            yield from ((definition, text) for definition, text in found if names & defined_names(definition))


def is_all(node: ast.stmt) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign) and "__all__" in defined_names(node)


def defined_names(node: ast.stmt) -> set[str]:
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return {name}
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def members(node: ast.ClassDef) -> Iterator[str]:
    """The fields of a class, and its documented methods."""
    for child, text in with_text(node.body):
        if isinstance(child, ast.AnnAssign):
            default = (
                "" if child.value is None or isinstance(child.value, ast.Call) else f" = {ast.unparse(child.value)}"
            )
            yield f"- `{ast.unparse(child.target)}: {kind(child.annotation)}{default}`" + (f": {text}" if text else "")
        elif text and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"- `{signature(child)}`: {text}".replace("\n", "\n  ")


def with_text(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Everything with a public name, with its docstring: inside of it, or below an assignment."""
    for node, below in pairwise([*body, ast.Pass()]):
        match node, below:
            case ((ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name)), _):
                text = ast.get_docstring(node) or ""
            case (
                (ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name))),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                pass
            case ((ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name))), _):
                text = ""
            case _:
                continue
        if not name.startswith("_"):
            yield node, text


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    arguments = re.sub(r"^self(, /)?(, )?", "", ast.unparse(node.args))
    text = (
        f"{node.name}({re.sub(r'(?<! )=(?! )', ' = ', arguments)}) -> {ast.unparse(node.returns or ast.Constant(None))}"
    )
    return "async " * isinstance(node, ast.AsyncFunctionDef) + re.sub(r"'([A-Za-z.]*[A-Z]\w*)'", r"\1", text)


def kind(annotation: ast.expr) -> str:
    """The type itself: what an Annotated adds is in the schema."""
    match annotation:
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return ast.unparse(first)
    return ast.unparse(annotation)


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
