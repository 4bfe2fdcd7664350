"""Read .copier-answers.yml, in which a service records the template's address, its version and the answers."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from fleet.errors import FleetError, Malformed
from fleet.template.trust import is_trusted

ANSWERS_FILE = ".copier-answers.yml"
# The place in which Copier's documentation puts the answers to a second template of a repository.
OTHER_ANSWERS = ".copier-answers.*.yml"

# The most values of a YAML file: far more than any file that people write has.
MOST_VALUES = 500_000
# The limit for answers and waivers, which are read before any limit of time holds.
MOST_BYTES = 2**20
# The most characters of a number. YAML reads 1:30:00 as a number of base 60, in a time that grows by the square of the
# length.
MOST_DIGITS = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

# The loader in C reads the same in a fraction of the time. Not every build of PyYAML has it.
_Fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_Fast):
    """Report the line of an impossible value, such as the date 2027-02-30, for which PyYAML raises other exceptions."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag in _NUMBERS and len(node.value) > MOST_DIGITS:
            what = f"a number has more than {MOST_DIGITS} characters"
            raise ConstructorError(None, None, what, node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, ValueError):
            what = f"{str(node.value)[:MOST_DIGITS]} is no {node.tag.rpartition(':')[2]}"
            raise ConstructorError(None, None, what, node.start_mark) from None


def load(text: str | bytes) -> Any:
    """Parse a text with one document. Raises yaml.YAMLError, or RecursionError."""
    documents = list(load_all(text))
    if len(documents) > 1:
        raise yaml.YAMLError("it has more than one document")
    return documents[0] if documents else None


def load_all(text: str | bytes, loader: type = Loader) -> Iterator[Any]:
    """Yield the documents of a text.

    Raises yaml.YAMLError, also if there are more than MOST_VALUES values with every alias written out; RecursionError.
    """
    has_aliases = (b"&" if isinstance(text, bytes) else "&") in text  # ty: ignore[unsupported-operator]
    if len(text) > MOST_VALUES:  # each value takes a character at least
        _refuse_many(text, loader)
    reader = loader(text)
    try:
        while reader.check_node():
            node = reader.get_node()
            if has_aliases and _values(node, {}) > MOST_VALUES:
                raise ConstructorError(
                    None, None, f"its aliases make more than {MOST_VALUES:,} values", node.start_mark
                )
            yield reader.construct_document(node)
    finally:
        reader.dispose()


def _refuse_many(text: str | bytes, loader: type) -> None:
    """Refuse a text with more values than any file has, before they take memory. Raises yaml.YAMLError."""
    nodes = (event for event in yaml.parse(text, loader) if isinstance(event, yaml.NodeEvent))
    if one := next(islice(nodes, MOST_VALUES, None), None):
        raise ConstructorError(None, None, f"it has more than {MOST_VALUES:,} values", one.start_mark)


def refuse_long(path: str, content: bytes) -> None:
    """Refuse a file of answers or waivers that is longer than anything that people or tools write. Raises FleetError."""
    if len(content) > MOST_BYTES:
        raise Malformed(
            f"{path} has {len(content):,} bytes, and fleet reads up to {MOST_BYTES:,} of it: restore the file from git",
            path,
        )


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count the values of a node with every alias written out."""
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # for a node that contains itself, whose count would never end
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        is_one = isinstance(node, yaml.ScalarNode)
        known[id(node)] = 1 if is_one else 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def not_yaml(path: str, error: Exception) -> Malformed:
    """Turn an error of the loader into a message about the file."""
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 0
    what = f" ({error.problem})" if isinstance(error, ConstructorError) else ""
    return Malformed(f"{path} is not YAML{f', line {line}' if line else ''}{what}", path, line)


@dataclass(frozen=True)
class Answers:
    """The content of .copier-answers.yml."""

    source: str
    version: str
    values: dict[str, Any]
    text: str

    @classmethod
    def parse(cls, content: bytes | None) -> "Answers":
        """Parse the file. Raises FleetError if it is missing, malformed, or from a copy that cannot be updated."""
        if content is None:
            raise FleetError(f"no {ANSWERS_FILE}: not a service of this platform, or not at its repository's root")
        refuse_long(ANSWERS_FILE, content)
        try:
            text = content.decode()
            recorded = load(text)
        except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise FleetError(f"{not_yaml(ANSWERS_FILE, error)}: restore it from git") from None
        if not isinstance(recorded, dict):
            raise FleetError(f"{ANSWERS_FILE} holds no answers: restore it from git")
        if strange := [name for name in recorded if not isinstance(name, str)]:
            raise FleetError(f"{ANSWERS_FILE} has an answer to {strange[0]!r}, which is no question: remove it")
        if damaged := [name for name, value in recorded.items() if isinstance(value, str) and "\0" in value]:
            raise FleetError(f"the value of {damaged[0]} in {ANSWERS_FILE} contains a NUL character: remove it")
        source, version = (recorded.get(name) for name in ("_src_path", "_commit"))
        if not isinstance(source, str):
            raise FleetError(f"{ANSWERS_FILE} has no _src_path: write the template's git URL there")
        if version is None:
            raise FleetError(
                f"{ANSWERS_FILE} has no _commit: the service was copied from a folder without git history. Copy it again "
                "from the template's git URL (copier recopy), or write the template's version there"
            )
        values = {name: value for name, value in recorded.items() if not name.startswith("_")}
        if not isinstance(version, str):
            # YAML reads an abbreviated hash such as 0123456 as a number.
            version = f"\n{text}".partition("\n_commit:")[2].partition("\n")[0].strip()
        return cls(source, version, values, text)


def parse_recorded(content: bytes | None, others: Callable[[], Mapping[str, bytes | None]]) -> Answers:
    """Parse the recorded answers. `others` reads the answers to other templates, by path. Raises FleetError."""
    found = _parse(content)
    if not _is_ours(found):
        for path in (path for path, other in others().items() if _is_ours(_parse(other))):
            raise FleetError(
                f"the answers to the platform's template are in {path}, and fleet reads them from {ANSWERS_FILE}: rename the "
                "file; if another template has its answers under that name, rename that file first"
            )
    if isinstance(found, FleetError):
        raise found
    return found


def _parse(content: bytes | None) -> Answers | FleetError:
    try:
        return Answers.parse(content)
    except FleetError as error:
        return error


def _is_ours(found: Answers | FleetError) -> bool:
    return isinstance(found, Answers) and is_trusted(found.source)


def without_aggregates(blocks: dict[str, str], gone: Collection[str]) -> str:
    """Leave these aggregates out of the answer. A reference to one of them becomes a uuid."""
    words = {_word(name) for name in gone}

    def free(row: str) -> str:
        field, _, kind = row.partition(": ")
        return f"{field}_id: uuid" if _word(kind.removesuffix("?")) in words else row

    return "\n".join(free(row) for name, block in blocks.items() if name not in gone for row in block.splitlines())


def _word(name: str) -> str:
    """Return the name of an aggregate in one spelling: line-item, line_item and LineItem are the same."""
    return name.replace("_", "").replace("-", "").lower()


def aggregates_in(values: dict[str, Any]) -> dict[str, str]:
    """Map the name of each aggregate in the recorded answers to its lines: a line with the name, and one for each field."""
    blocks: dict[str, str] = {}
    name = ""
    for row in str(values.get("aggregates", "")).splitlines():
        if row[:1].strip():
            name = row.partition(":")[0]
            blocks[name] = row
        elif name:
            blocks[name] += f"\n{row}"
    return blocks
