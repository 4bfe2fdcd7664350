"""The questions of copier.yml: their refusals with the messages, their defaults, and the computed answers."""

import ast
import json
import keyword
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from chassis import fields
from chassis.messages import Contract
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.commands import git
from tests.support.paths import ROOT
from tests.support.questions import questions

WORDS = ROOT / "questions" / "words"

Answers = dict[str, Any]
Copy = Callable[..., Any]
Ask = Callable[..., Answers]
Validate = Callable[[str, Any], str]
Render = Callable[..., str]
Prompts = Callable[..., dict[str, Answers]]

pytestmark = pytest.mark.usefixtures("quick_copier")

NEW_PARTS = "chassis_parts:\n- idempotency\n"
"""The recorded answer of a new service."""
OPTIONS: dict[str, Any] = {"quiet": True, "settings": copier.Settings()}


@pytest.fixture
def copy(questionnaire: Path, tmp_path: Path) -> Copy:
    """Run `copier copy --defaults`, with answers as `-d` gives them."""

    def copy(folder: str = "billing", pretend: bool = False, **data: Any) -> Any:
        return copier.run_copy(
            str(questionnaire), tmp_path / folder, data=data, defaults=True, pretend=pretend, **OPTIONS
        )

    return copy


@pytest.fixture
def ask(copy: Copy) -> Ask:
    """Return all answers, with the computed answers."""
    return lambda **data: dict(copy(pretend=True, **data).answers.combined)


@pytest.fixture(scope="session")
def rendered(questionnaire: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render a question's default or validator as Copier does, without the rest of a run."""
    target = tmp_path_factory.mktemp("any") / "billing"
    environment = copier.run_copy(str(questionnaire), target, defaults=True, pretend=True, **OPTIONS).jinja_env
    templates = {
        (name, key): environment.from_string(question[key])
        for name, question in questions().items()
        for key in ("default", "validator")
        if key in question
    }
    return lambda name, key, **answers: templates[name, key].render(answers).strip()


@pytest.fixture(scope="session")
def validate(rendered: Render) -> Validate:
    """Return the message of a question's validator for an answer."""
    return lambda name, answer: rendered(name, "validator", **{name: answer})


@pytest.fixture(scope="session")
def seed(rendered: Render) -> Callable[[str], str]:
    """Return the aggregates of a new service of that name."""
    return lambda service: rendered("aggregates", "default", service_name=service)


def words(file: str) -> set[str]:
    return set((WORDS / file).read_text().split())


# The prompts


@pytest.fixture
def prompts(monkeypatch: pytest.MonkeyPatch, questionnaire: Path, tmp_path: Path) -> Prompts:
    """Answer at the prompts, by default with the default, and record the questions."""

    def run(folder: str = "billing", **replies: Any) -> dict[str, Answers]:
        asked = {}

        def prompt(structures: list[Answers], answers: Answers) -> Answers:
            [structure] = structures
            name = structure["name"]
            if structure["when"](None):
                asked[name] = structure
                answers = {name: replies.get(name, answers[name])}
            return answers

        monkeypatch.setattr("copier._main.unsafe_prompt", prompt)
        copier.run_copy(str(questionnaire), tmp_path / folder, pretend=True, **OPTIONS)
        return asked

    return run


def test_a_usual_run_has_ten_prompts(prompts: Prompts) -> None:
    assert list(prompts()) == [
        "service_name", "description", "domain", "owner", "aggregates", "messaging_style", "ci",
        "limited_by_monolith", "separate_team", "ready_for_consistency",
    ]  # fmt: skip


@pytest.mark.parametrize("style", ["events", "queues", "events-and-queues"])
def test_only_a_service_with_messages_is_asked_for_a_broker(prompts: Prompts, style: str) -> None:
    asked = list(prompts(messaging_style=style))
    assert asked.index("broker") == asked.index("messaging_style") + 1
    assert ("sagas" in asked) == ("queues" in style)
    assert len(asked) == 11 + ("sagas" in asked)


def test_only_a_monolith_asks_for_one_more_and_takes_only_yes(prompts: Prompts) -> None:
    asked = prompts(separate_team="no", limited_by_monolith="no", create_anyway=True)
    assert len(asked) == 11
    validate = asked["create_anyway"]["validate"]
    assert validate("yes") is True
    assert "type yes to create it anyway" in validate("no")


def test_help_fits_a_terminal_of_eighty_columns() -> None:
    for name, question in questions().items():
        if question.get("when") is not False:
            assert question["help"].strip(), name
            assert max(len(line) for line in question["help"].splitlines()) < 78, name


def test_without_a_usable_folder_name_the_service_name_has_no_default(prompts: Prompts) -> None:
    assert "default" not in prompts("user", service_name="users")["service_name"]


# Defaults


def test_defaults_follow_from_the_service_name(ask: Ask) -> None:
    answers = ask(service_name="user-profile")
    assert answers["description"] == "Owns the data, rules and API of user profile"
    assert answers["domain"] == "user-profile"
    assert answers["owner"] == "user-profile-team"
    assert answers["aggregates"] == "UserProfile:\n  name: string(120)\n  note: text?\n"
    assert (answers["messaging_style"], answers["ci"]) == ("sync", "github")
    assert [answers[name] for name in BOUNDARY] == ["unknown"] * 3


def test_the_owner_follows_the_domain(ask: Ask) -> None:
    assert ask(service_name="billing", domain="sales")["owner"] == "sales-team"


def test_the_folder_names_the_service(ask: Ask) -> None:
    assert ask(folder="Order_Service")["service_name"] == "order-service"


def test_a_folder_that_cannot_name_the_service_is_refused_with_defaults(ask: Ask) -> None:
    with pytest.raises(ValueError, match="type 'users': 'user' is reserved in PostgreSQL"):
        ask(folder="user")


def test_billing_looks_after_invoices(ask: Ask) -> None:
    [invoice] = ask(service_name="billing")["aggregate_list"]
    assert invoice["name"] == "Invoice"
    assert [(f["name"], f["type"], f["optional"]) for f in invoice["fields"]] == [
        ("number", "string", False),
        ("customer_id", "uuid", False),
        ("total", "money", False),
        ("due_on", "date", True),
        ("note", "text", True),
    ]


@pytest.mark.parametrize(
    ("service", "aggregate"),
    [
        ("orders", "Order"), ("payment-service", "Payment"), ("notifications", "Notification"), ("catalog", "Product"),
        ("inventory", "StockItem"), ("customers-api", "Customer"), ("shipping", "Shipment"), ("addresses", "Address"),
        ("categories", "Category"), ("warehouses", "Warehouse"), ("people", "Person"), ("sms", "Sms"),
        ("users", "User"), ("events", "Item"), ("my-service", "My"), ("a1", "A1"), ("analyses", "Analysis"),
        ("buses", "Bus"), ("prizes", "Prize"), ("ties", "Tie"), ("indices", "Index"), ("heroes", "Hero"),
    ],
)  # fmt: skip
def test_every_service_starts_with_an_aggregate_that_is_accepted(
    seed: Callable[[str], str], validate: Validate, service: str, aggregate: str
) -> None:
    assert seed(service).startswith(f"{aggregate}:\n")
    assert validate("aggregates", seed(service)) == ""


@pytest.mark.slow
def test_even_a_service_called_like_a_reserved_word_starts_with_a_valid_aggregate(
    seed: Callable[[str], str], validate: Validate
) -> None:
    for word in words("aggregates.txt") | words("sql-reserved.txt") | words("python-keywords.txt"):
        name = f"{word.replace('_', '-')}s-service"
        assert validate("aggregates", seed(name)) == "", name


# Refusals


SERVICE_NAMES = [
    ("BillingService", "type 'billing-service': 'BillingService' is not kebab-case"),
    ("user_profile", "type 'user-profile': 'user_profile' is not kebab-case"),
    ("2fa", "type 'fa': '2fa' is not kebab-case"),
    ("a--b", "type 'a-b'"),
    ("billing-", "type 'billing'"),
    ("billing\n", "type 'billing'"),
    ("größe", "is not kebab-case"),
    ("", "is not kebab-case"),
    ("a", "type 'billing': 'a' is not 2 to 40 characters long"),
    ("a-name-of-more-than-forty-characters-is-refused", "type 'a-name-of-more-than-forty-characters-is': "),
    ("import", "type 'import-service': 'import' is a keyword of Python"),
    ("match", "'match' is a keyword of Python"),
    ("email", "type 'email-service': 'email' is a module of Python's standard library"),
    ("user", "type 'users': 'user' is reserved in PostgreSQL"),
    ("order", "type 'orders': "),
    ("group", "type 'groups': "),
    ("table", "type 'tables': "),
    ("current-date", "reserved in PostgreSQL"),
    ("pg-tools", "type 'postgres-tools': "),
    ("public", "type 'public-service': "),
    ("information-schema", "type 'information-schema-service': 'information-schema' is PostgreSQL's own"),
    ("chassis", "type 'chassis-service': 'chassis' is a name in the code already"),
    ("test", "type 'test-service': "),
    ("tests", "type 'tests-service': "),
    ("fastapi", "type 'fastapi-service': 'fastapi' is a name in the code already"),
    ("opentelemetry", "type 'opentelemetry-service': 'opentelemetry' is a name in the code already"),
    ("fasteners", "type 'fasteners-service': 'fasteners' is a name in the code already"),
    ("messaging", "type 'messaging-service': "),
    ("application", "type 'application-service': "),
    ("postgres", "type 'postgres-service': 'postgres' is a database of every PostgreSQL server"),
    ("build", "type 'build-service': 'build' is a folder that git and ruff leave out"),
]


@pytest.mark.parametrize(("name", "message"), SERVICE_NAMES)
def test_a_bad_service_name_is_refused(validate: Validate, name: str, message: str) -> None:
    assert message in validate("service_name", name)


@pytest.mark.parametrize("name", ["billing", "user-profile", "ab", "a1-b2", "o" * 40, "orders", "email-service"])
def test_a_good_service_name_is_accepted(validate: Validate, name: str) -> None:
    assert validate("service_name", name) == ""


@pytest.mark.slow
def test_the_answer_that_a_refusal_suggests_is_accepted(validate: Validate) -> None:
    refused = 0
    for word in set.union(*(words(file.name) for file in WORDS.iterdir())):
        if message := validate("service_name", word.lower().replace("_", "-")):
            refused += 1
            suggestion = re.search("type '(.*?)':", message)
            assert suggestion, message
            assert validate("service_name", suggestion[1]) == "", message
    assert refused > 400


def test_the_reserved_words_cover_this_python(validate: Validate) -> None:
    assert {word.lower() for word in keyword.kwlist} <= words("python-keywords.txt")
    assert {name for name in sys.stdlib_module_names if not name.startswith("_")} <= words("python-modules.txt")
    for name in keyword.softkwlist:
        assert validate("service_name", name) != ""


@pytest.mark.slow
def test_the_reserved_words_cover_the_packages_that_a_service_installs() -> None:
    installed: set[str] = set()
    ahead = [("slipway-chassis", "dev")]
    while ahead:
        name, extra = ahead.pop()
        installed.add(name)
        for needed in map(Requirement, metadata.requires(name) or []):
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                name = canonicalize_name(needed.name)
                ahead += [(name, extra) for extra in ["", *needed.extras] if extra or name not in installed]
    assert len(installed) > 50
    packages = {name.replace("-", "_") for name in installed}
    packages |= {
        module.lower()
        for module, names in metadata.packages_distributions().items()
        if {canonicalize_name(name) for name in names} & installed and re.fullmatch("[A-Za-z][A-Za-z0-9_]*", module)
    }
    assert packages - words("python-modules.txt") <= words("packages.txt")


@pytest.mark.slow
def test_the_reserved_words_cover_the_names_in_a_services_own_code(render: Callable[..., Path]) -> None:
    service = render(messaging_style="events-and-queues", broker="nats")
    main = ast.parse((service / "src/billing/main.py").read_text())
    imported = {
        name.asname or name.name for node in main.body if isinstance(node, ast.ImportFrom) for name in node.names
    }
    # Under pytest, tests/ is first in sys.path, so its folders would hide a service's package of the same name.
    folders = {path.name for path in (ROOT / "template" / "tests").iterdir() if path.is_dir()}
    assert {name for name in imported if name.islower()} | folders <= words("packages.txt")


ANSWERS = [
    ("description", "no", "type 3 to 160 characters: the sentence has 2"),
    ("description", "x" * 161, "type 3 to 160 characters: the sentence has 161"),
    ("description", 'The "best" one', 'leave out "'),
    ("description", "A back\\slash", "leave out \\"),
    ("description", "Costs $5", "leave out $"),
    (
        "description",
        "two\nlines",
        'leave out "\\n", and stay on one line: the text goes into TOML, YAML and Python',
    ),
    ("description", "a {{ tag", "leave out {{"),
    ("description", "a {% tag", "leave out {%"),
    ("description", " spaced", "type 'spaced': it begins or ends with a space"),
    ("domain", "Big Sales", "type 'big-sales': 'Big Sales' is not kebab-case"),
    ("domain", "s", "type 2 to 40 characters: 's' has 1"),
    ("owner", "billing team", "type 'billing-team' or '@org/team': 'billing team' is not the name of a team"),
    ("owner", "org/team", "type 'org-team' or '@org/team': 'org/team' is not the name of a team"),
    ("owner", "@org", "type 'org' or '@org/team': '@org' is not the name of a team"),
    ("owner", 'a"b', "type 'a-b' or '@org/team': 'a\"b' is not the name of a team"),
    (
        "owner",
        "x" * 64,
        "type 2 to 63 characters: 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' has 64",
    ),
    ("platform_team", "org/team", "type 'org-team' or '@org/team': 'org/team' is not the name of a team"),
    ("create_anyway", False, "type yes to create it anyway, or stop: two of three answers are for a monolith"),
]


@pytest.mark.parametrize(("question", "answer", "message"), ANSWERS)
def test_a_bad_answer_is_refused(validate: Validate, question: str, answer: object, message: str) -> None:
    assert message in validate(question, answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("description", "It's Größe #1: {small} & cheap, 100 %"),
        ("domain", "sales"),
        ("owner", "billing-team"),
        ("owner", "@Org/billing.team"),
        ("owner", "@group/sub/team"),
        ("platform_team", "@org/platform"),
        ("platform_team", ""),
        ("create_anyway", True),
    ],
)
def test_a_good_answer_is_accepted(validate: Validate, question: str, answer: object) -> None:
    assert validate(question, answer) == ""


CUSTOMER = "Customer: {a: text}"
AGGREGATES = [
    # no aggregate, an empty one
    ("", "type a name and its fields: 'Invoice: {total: money}', at least one aggregate"),
    ("{}", "type a name and its fields: 'Invoice: {total: money}', at least one aggregate"),
    ("[Invoice]", "type a name and its fields: 'Invoice: {total: money}', at least one aggregate"),
    ("Invoice", "type a name and its fields: 'Invoice: {total: money}', at least one aggregate"),
    ("Invoice:", "type at least one field: 'Invoice: {name: string(120)}'"),
    ("Invoice: {}", "type at least one field: 'Invoice: {name: string(120)}'"),
    ("Invoice: number", "type fields as 'name: type': after Invoice stands the text 'number'"),
    ("Invoice: {number:string}", "type a space after the colon: 'number:string' is one name for YAML"),
    # aggregates' names
    ("Invoices: {a: text}", "type 'Invoice': Invoices is a plural; or, if it is none, 'InvoicesRecord'"),
    ("line_items: {a: text}", "type 'LineItem': line_items is a plural; or, if it is none, 'LineItemsRecord'"),
    ("In voice: {a: text}", "type 'InVoice': 'In voice' is not letters and digits, a letter first"),
    ("1st: {a: text}", "type 'St': '1st' is not letters and digits, a letter first"),
    ("true: {a: text}", "type a word such as 'Invoice': YAML reads true as a value"),
    ("X: {a: text}", "type a name of 2 to 30 characters: 'x' has 1"),
    ("AnAggregateWithAVeryLongNameIndeed: {a: text}", "type a name of 2 to 30 characters"),
    ("Money: {a: text}", "type 'MoneyRecord': Money is a word of Python, PostgreSQL or the code"),
    ("UUID: {a: text}", "type 'UuidRecord': UUID is a word of Python, PostgreSQL or the code"),
    ("Status: {a: text}", "type 'StatusRecord': Status is a word of Python, PostgreSQL or the code"),
    ("Class: {a: text}", "type 'ClassRecord': Class is a word of Python, PostgreSQL or the code"),
    ("Id: {a: text}", "type 'IdRecord': Id is a word of Python, PostgreSQL or the code"),
    ("Test: {a: text}", "type 'Trial': pytest would take the code of 'Test' for tests"),
    ("test-run: {a: text}", "type 'TrialRun': pytest would take the code of 'test-run' for tests"),
    ("Reference: {a: text}", "type 'ReferenceRecord': Reference is a word of Python, PostgreSQL or the code"),
    # two aggregates
    ("Invoice: {a: text}\nInvoice: {b: text}", "keep one or rename the other: Invoice is there twice"),
    ("{Invoice: {a: text}, Invoice: {b: text}}", "keep one or rename the other: Invoice is there twice"),
    ("LineItem: {a: text}\nline-item: {a: text}", "keep one or rename the other: line-item is a second 'LineItem'"),
    ("Line1: {a: text}\nLine_1: {a: text}", "keep one or rename the other: Line_1 is a second 'Line1'"),
    (
        "Ax: {a: text}\nAxe: {a: text}",
        "rename it or the other: Axe makes a second table 'axes'",
    ),
    (
        "Invoice: {a: text}\nInvoiceStatus: {a: text}",
        "type another name: Invoice makes a class or module 'InvoiceStatus'",
    ),
    (
        "Invoice: {a: text}\nInvoiceQuery: {a: text}",
        "type another name: Invoice makes a class or module 'InvoiceQuery'",
    ),
    (
        "Invoice: {a: text}\nInvoiceReminder: {a: text}",
        "type another name: Invoice makes a class or module 'InvoiceReminder'",
    ),
    (
        "Invoice: {a: text}\nInvoiceIssued: {a: text}",
        "type another name: Invoice makes a class or module 'InvoiceIssued'",
    ),
    (
        "Invoice: {kind: enum(a|b)}\nInvoiceKind: {a: text}",
        "type another name: Invoice makes a class or module 'InvoiceKind'",
    ),
    # fields' names
    ("Invoice: {id: uuid}", "leave out Invoice.id, or type 'external_id': each has it"),
    ("Invoice: {version: integer}", "leave out Invoice.version, or type 'invoice_version': each has it"),
    ("Invoice: {status: text}", "leave out Invoice.status, or type 'invoice_status': its only type is 'none'"),
    (
        "Invoice: {created_at: datetime}",
        "leave out Invoice.created_at, or type 'invoice_created_at': each has it",
    ),
    # parts that an aggregate goes without
    ("Invoice: {status: None, a: text}", "leave out Invoice.status, or type 'invoice_status': its only type is 'none'"),
    ("Invoice: {status: none}", "type at least one field: 'Invoice: {name: string(120)}'"),
    ("Invoice: {a: none, b: text}", "type a type for Invoice.a: 'none' is for status and reminder alone"),
    ("Invoice: {audit: none, a: text}", "type a type for Invoice.audit: 'none' is for status and reminder alone"),
    ("Invoice: {audit: caller}", "type at least one field: 'Invoice: {name: string(120)}'"),
    (
        "Invoice: {audit: yes, a: text}",
        "type 'audit: caller' for such columns: Invoice.audit has the type 'yes'",
    ),
    (
        "Invoice: {created_by: caller, a: text}",
        "type 'audit: caller' for such columns: Invoice.created_by has the type 'caller'",
    ),
    (
        "Invoice: {created_by: text, audit: caller}",
        "leave out Invoice.created_by: 'audit: caller' makes this column",
    ),
    (
        "Order: {lines: [{audit: caller, sku: text}]}",
        "leave out Order.lines.audit: 'audit: caller' is for a whole aggregate",
    ),
    (
        "Order: {lines: [{events: state, sku: text}]}",
        "leave out Order.lines.events: 'events: state' is for a whole aggregate",
    ),
    (
        "Invoice: {reminder: none, status: none, a: text}",
        "leave out Invoice.reminder: 'status: none' leaves out reminders, too",
    ),
    ("Invoice: {status: none, a: text, status: none}", "keep one or rename the other: Invoice.status is there twice"),
    (
        "Invoice: {occurred_at: datetime}",
        "type 'invoice_occurred_at': Invoice.occurred_at is taken by the code",
    ),
    ("Invoice: {invoice_id: uuid}", "leave out Invoice.invoice_id, or type 'external_id': routes call the id so"),
    ("Invoice: {select: text}", "type 'invoice_select': Invoice.select is reserved in PostgreSQL"),
    ("Invoice: {order: text}", "type 'invoice_order': Invoice.order is reserved in PostgreSQL"),
    ("Invoice: {user: text}", "type 'invoice_user': Invoice.user is reserved in PostgreSQL"),
    ("Invoice: {xmin: text}", "type 'invoice_xmin': Invoice.xmin is reserved in PostgreSQL"),
    ("Invoice: {class: text}", "type 'invoice_class': Invoice.class is a keyword of Python"),
    (
        "Invoice: {model_year: integer}",
        "type 'invoice_model_year': Invoice.model_year is taken by the code",
    ),
    ("Invoice: {copy: text}", "type 'invoice_copy': Invoice.copy is taken by the code"),
    ("Invoice: {change: text}", "type 'invoice_change': Invoice.change is taken by the code"),
    ("Invoice: {changes: text}", "type 'invoice_changes': Invoice.changes is taken by the code"),
    (
        "KeyValue: {key: text}",
        "type 'key_value_key': KeyValue.key makes a second class 'KeyValue'",
    ),
    ("Score: {score: integer, value: enum(a|b)}", "type 'score_score': Score.score makes a second class 'ScoreValue'"),
    ("Invoice: {issue: text}", "type 'invoice_issue': Invoice.issue is taken by the code"),
    ("Invoice: {keys: text}", "type 'invoice_keys': Invoice.keys is taken by the code"),
    ("Invoice: {dueOn: date}", "type 'due_on': Invoice.dueOn is not snake_case, lower-case words joined by _"),
    ("Invoice: {_a: text}", "type 'a': Invoice._a is not snake_case, lower-case words joined by _"),
    ("Invoice: {a__b: text}", "type 'a_b': Invoice.a__b is not snake_case, lower-case words joined by _"),
    ("Invoice: {a_: text}", "type 'a': Invoice.a_ is not snake_case, lower-case words joined by _"),
    ("Invoice: {on: date}", "type another word: YAML reads Invoice.true as a value, like on, off and 1"),
    ("Invoice: {1: date}", "type another word: YAML reads Invoice.1 as a value, like on, off and 1"),
    (f"Invoice: {{{'a' * 31}: date}}", "type at most 30 characters: 31 are in Invoice.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    # two fields
    (
        "Invoice: {number: text, number: uuid}",
        "keep one or rename the other: Invoice.number is there twice",
    ),
    (
        "Invoice:\n  number: text\n  # and\n  'number': uuid\n",
        "keep one or rename the other: Invoice.number is there twice",
    ),
    (
        "Order:\n  a: text\nInvoice:\n  a: text\n  b: text\n  a: text?\n",
        "keep one or rename the other: Invoice.a is there twice",
    ),
    (
        "Invoice: {total: money, total_amount: text}",
        "rename it or 'total': Invoice.total_amount is a column of that money",
    ),
    (
        "Invoice: {total: money?, total_currency: text}",
        "rename it or 'total': Invoice.total_currency is a column of that money",
    ),
    ("Invoice: {line1: text, line_1: text}", "type another name: Invoice.line_1 makes a second class 'Line1'"),
    ("Invoice: {page: enum(a|b)}", "type 'invoice_page': the code has a class of Invoice.page"),
    ("Invoice: {issued: enum(a|b)}", "type 'invoice_issued': the code has a class of Invoice.issued"),
    (
        "Invoice: {already_issued: enum(a|b)}",
        "type 'invoice_already_issued': the code has a class of Invoice.already_issued",
    ),
    # types
    ("Invoice: {a: int}", "type 'integer': Invoice.a has 'int', which is no field type"),
    ("Invoice: {a: str?}", "type 'string?': Invoice.a has 'str?', which is no field type"),
    ("Invoice: {a: varchar(20)}", "type 'string': Invoice.a has 'varchar(20)', which is no field type"),
    ("Invoice: {a: float}", "type 'decimal(12,2)': Invoice.a has 'float', which is no field type"),
    ("Invoice: {a: decimal}", "type 'decimal(12,2)': Invoice.a has 'decimal', which is no field type"),
    ("Invoice: {a: timestamp}", "type 'datetime': Invoice.a has 'timestamp', which is no field type"),
    ("Invoice: {a: bool}", "type 'boolean': Invoice.a has 'bool', which is no field type"),
    ("Invoice: {a: json}", "type 'text': Invoice.a has 'json', which is no field type"),
    ("Invoice: {a: enum}", "type 'enum(low|high)': Invoice.a has 'enum', which is no field type"),
    ("Invoice: {a: String(40)}", "type 'string(40)': Invoice.a has a type in upper case"),
    (
        "Invoice: {a: wibble}",
        "type a type for Invoice.a: string(n), text, integer, decimal(p,s), money, boolean, date, datetime, uuid, enum(a|b) or an aggregate; 'wibble' is none",
    ),
    (
        "Invoice: {a: }",
        "type a type for Invoice.a: string(n), text, integer, decimal(p,s), money, boolean, date, datetime, uuid, enum(a|b) or an aggregate; 'null' is none",
    ),
    (
        "Invoice: {a: [text]}",
        "type 'a: [{sku: string(40)}]': the list of Invoice.a needs one mapping",
    ),
    (
        "Invoice: {a: {type: text}}",
        'type a type for Invoice.a: string(n), text, integer, decimal(p,s), money, boolean, date, datetime, uuid, enum(a|b) or an aggregate; \'{"type": "text"}\' is none',
    ),
    (
        "Invoice:\n  a: text??",
        "type a type for Invoice.a: string(n), text, integer, decimal(p,s), money, boolean, date, datetime, uuid, enum(a|b) or an aggregate; 'text??' is none",
    ),
    ("Invoice: {a: string(40}", "type the closing parenthesis: Invoice.a has the type 'string(40'"),
    ("Invoice: {a: integer(3)}", "type 'integer': the type of Invoice.a takes no parentheses"),
    ("Invoice: {a: string(0)}", "type 'string(200)' or 'text': Invoice.a has 'string(0)', not 1 to 1000"),
    ("Invoice: {a: string(1001)}", "type 'string(200)' or 'text': Invoice.a has 'string(1001)', not 1 to 1000"),
    ("Invoice: {a: string()}", "type 'string(200)' or 'text': Invoice.a has 'string()', not 1 to 1000"),
    ("Invoice: {a: string(x)}", "type 'string(200)' or 'text': Invoice.a has 'string(x)', not 1 to 1000"),
    ("Invoice: {a: decimal(0,0)}", "type 'decimal(12,2)', or alike: Invoice.a is 'decimal(0,0)', not 1 to 38 digits"),
    (
        "Invoice: {a: decimal(39,2)}",
        "type 'decimal(12,2)', or alike: Invoice.a is 'decimal(39,2)', not 1 to 38 digits",
    ),
    ("Invoice: {a: decimal(2,3)}", "type 'decimal(12,2)', or alike: Invoice.a is 'decimal(2,3)', not 1 to 38 digits"),
    ("Invoice: {a: decimal(12)}", "type 'decimal(12,2)', or alike: Invoice.a is 'decimal(12)', not 1 to 38 digits"),
    ("Invoice: {a: enum()}", "type 'enum(low|high)', or alike: Invoice.a has '', no free snake_case word"),
    ("Invoice: {a: enum(x|x)}", "type 'enum(x)': Invoice.a has a value twice"),
    ("Invoice: {a: enum(X|y)}", "type 'enum(low|high)', or alike: Invoice.a has 'X', no free snake_case word"),
    ("Invoice: {a: enum(x,y)}", "type 'enum(low|high)', or alike: Invoice.a has 'x,y', no free snake_case word"),
    ("Invoice: {a: enum(class|y)}", "type 'enum(low|high)', or alike: Invoice.a has 'class', no free snake_case word"),
    (f"Invoice: {{a: enum({'|'.join(f'v{n}' for n in range(21))})}}", "type 1 to 20 values"),
    # unique values, references, defaults
    ("Invoice: {a: unique string(40)}", "type 'string(40) unique': Invoice.a has the word first"),
    ("Invoice: {a: unique}", "type 'string(40) unique': Invoice.a has the word first"),
    ("Invoice: {a: boolean unique}", "leave out 'unique': Invoice.a is no string, integer or uuid"),
    ("Invoice: {a: money unique}", "leave out 'unique': Invoice.a is no string, integer or uuid"),
    ("Invoice: {a: string(40) Unique}", "type a type for Invoice.a"),
    ("Invoice: {a: string unique unique}", "type a type for Invoice.a"),
    ("Invoice: {a: varchar unique}", "type 'string unique': Invoice.a has 'varchar unique', which is no field type"),
    ("Invoice: {a: string(0) unique}", "type 'string(200)' or 'text': Invoice.a has 'string(0) unique', not 1 to 1000"),
    ("Invoice: {a: text unique, a_taken: enum(x|y)}", "leave out 'unique': Invoice.a is no string, integer or uuid"),
    (
        "Invoice: {a: string unique, a_taken: enum(x|y)}",
        "type 'invoice_a_taken': the code has a class of Invoice.a_taken",
    ),
    (
        "Invoice: {a: string unique}\nInvoiceATaken: {b: text}",
        "type another name: Invoice makes a class or module 'InvoiceATaken'",
    ),
    (f"Order: {{a: Custmer}}\n{CUSTOMER}", "enum(a|b) or an aggregate; 'Custmer' is none"),
    (
        f"Order: {{customer_id: Customer}}\n{CUSTOMER}",
        "type 'customer: Customer': Order.customer_id gets its '_id' by itself",
    ),
    (
        f"Order: {{customer: Customer, customer_id: uuid}}\n{CUSTOMER}",
        "rename it or 'customer': Order.customer_id is the column of that reference",
    ),
    (
        f"Order: {{customer: Customer unique}}\n{CUSTOMER}",
        "type 'Customer': Order.customer is a reference, without more words",
    ),
    (
        f"Order: {{customer: Customer = 1}}\n{CUSTOMER}",
        "type 'Customer': Order.customer is a reference, without more words",
    ),
    (
        f"Order: {{Customer: Customer}}\n{CUSTOMER}",
        "type 'customer_id': Order.Customer_id is not snake_case, lower-case words joined by _",
    ),
    (
        f"Order: {{{'a' * 28}: Customer}}\n{CUSTOMER}",
        "type at most 30 characters: 31 are in Order.aaaaaaaaaaaaaaaaaaaaaaaaaaaa_id",
    ),
    (
        f"Order: {{order: Customer}}\n{CUSTOMER}",
        "leave out Order.order_id, or type 'external_id': routes call the id so",
    ),
    ("Order: {parent: Order?}", "type 'parent_id: uuid?': Order.parent refers to its own aggregate"),
    ("A1: {b: B1}\nB1: {a: A1}", "type 'b_id: uuid': A1.b closes a circle of references"),
    ("A1: {b: B1}\nB1: {c: C1?}\nC1: {a: A1}", "type 'b_id: uuid': A1.b closes a circle of references"),
    (
        f"Order: {{customer: Customer, customer_unknown: enum(a|b)}}\n{CUSTOMER}",
        "type 'order_customer_unknown': the code has a class of Order.customer_unknown",
    ),
    (
        f"Order: {{customer: Customer}}\n{CUSTOMER}\nOrderCustomerUnknown: {{a: text}}",
        "type another name: Order makes a class or module 'OrderCustomerUnknown'",
    ),
    (
        "Order: {customer: Customer}\nCustomer: {has_orders: enum(a|b)}",
        "type another name: Customer.has_orders makes a second class",
    ),
    (
        "Order: {customer: [Customer]}\nCustomer: {a: text}",
        "type 'customer: [{sku: string(40)}]': the list of Order.customer needs one mapping",
    ),
    ("Invoice: {a: integer = one}", "type 'integer = 1', or alike: Invoice.a has 'one'"),
    ("Invoice: {a: integer = 007}", "type 'integer = 1', or alike: Invoice.a has '007'"),
    ("Invoice: {a: integer = 9007199254740993}", "type 'integer = 1', or alike: Invoice.a has '9007199254740993'"),
    ("Invoice: {a: integer = }", "type 'integer = 1', or alike: Invoice.a has ''"),
    ("Invoice: {a: integer = 1 = 2}", "type 'integer = 1', or alike: Invoice.a has '1 = 2'"),
    ('Invoice:\n  a: "integer = \\u0661"', "type 'integer = 1', or alike: Invoice.a has '١'"),
    ("Invoice: {a: decimal(3,2) = 12.5}", "type 'decimal(3,2) = 0', or alike: Invoice.a has '12.5'"),
    ("Invoice: {a: decimal(3,2) = 1.555}", "type 'decimal(3,2) = 0', or alike: Invoice.a has '1.555'"),
    ("Invoice: {a: decimal(2,2) = 1.5}", "type 'decimal(2,2) = 0', or alike: Invoice.a has '1.5'"),
    ("Invoice: {a: decimal(2,2) = -0.0}", "type 'decimal(2,2) = 0', or alike: Invoice.a has '-0.0'"),
    ("Invoice: {a: enum(x|y) = z}", "type 'enum(x|y) = x', or alike: Invoice.a has 'z'"),
    ("Invoice: {a: boolean = yes}", "type 'boolean = true', or alike: Invoice.a has 'yes'"),
    ("Invoice: {a: string(2) = abc}", "type 'string(2) = a', or alike: Invoice.a has 'abc'"),
    ('Invoice:\n  a: string = "quoted"', "type 'string = a', or alike: Invoice.a has '\"quoted\"'"),
    ("Invoice:\n  a: 'string = {{ x }}'", "type 'string = a', or alike: Invoice.a has '{{ x }}'"),
    ("Invoice: {a: date = today}", "type 'date': the type of Invoice.a takes no default"),
    ("Invoice: {a: money = 5}", "type 'money': the type of Invoice.a takes no default"),
    ("Invoice: {a: integer unique = 5}", "leave out 'unique' or the default: Invoice.a has both"),
    ("Invoice: {a: integer = 5 unique}", "type 'integer = 1', or alike: Invoice.a has '5 unique'"),
    ("Invoice: {a: int = 5}", "type 'integer = 5': Invoice.a has 'int = 5', which is no field type"),
    # child entities
    ("Order: {lines: []}", "type 'lines: [{sku: string(40)}]': the list of Order.lines needs one mapping"),
    ("Order: {lines: [{}]}", "type 'lines: [{sku: string(40)}]': the list of Order.lines needs one mapping"),
    ("Order: {lines: [text]}", "type 'lines: [{sku: string(40)}]': the list of Order.lines needs one mapping"),
    ("Order: {lines: [[{a: text}]]}", "type 'lines: [{sku: string(40)}]': the list of Order.lines needs one mapping"),
    (
        "Order:\n  lines:\n    - {a: text}\n    - {b: text}",
        "type 'lines: [{sku: string(40)}]': the list of Order.lines needs one mapping",
    ),
    ("Order: {line: [{a: text}]}", "type 'lines': Order.line is a list, which has a plural"),
    ("Order: {ids: [{a: text}]}", "type another plural, as 'items': Order.ids has no singular"),
    ("Order: {lines: {a: text}}", "type a type for Order.lines"),
    ("Order: {lines: [{a: int}]}", "type 'integer': Order.lines.a has 'int', which is no field type"),
    ("Order: {lines: [{a: text, a: text}]}", "keep one or rename the other: Order.lines.a is there twice"),
    ("Order: {lines: [{a: none}]}", "type a type for Order.lines.a"),
    ("Order: {lines: [{a: [{b: text}]}]}", "type a type for Order.lines.a"),
    ("Order: {lines: [{a: string unique}]}", "type 'string': Order.lines.a is of a child entity, never unique"),
    ("Order: {lines: [{a: Order}]}", "type 'a_id: uuid': Order.lines.a cannot be a reference"),
    ("Order: {lines: [{a: integer = x}]}", "type 'integer = 1', or alike: Order.lines.a has 'x'"),
    ("Order: {lines: [{position: integer}]}", "type 'line_position': Order.lines.position is a column of the code"),
    ("Order: {lines: [{order_id: uuid}]}", "type 'line_order_id': Order.lines.order_id is a column of the code"),
    ("Order: {lines: [{details: enum(a|b)}]}", "type 'line_details': the code has a class of Order.lines.details"),
    ("Order: {lines: [{select: text}]}", "type 'order_lines_select': Order.lines.select is reserved in PostgreSQL"),
    (
        "Order: {lines: [{a: money, a_amount: text}]}",
        "rename it or 'a': Order.lines.a_amount is a column of that money",
    ),
    ("Book: {pages: [{a: text}]}", "type another name: Book.pages makes a second class 'BookPage'"),
    ("Order: {statuses: [{a: text}]}", "type another name: Order.statuses makes a second class 'OrderStatus'"),
    ("Order: {line: enum(a|b), lines: [{a: text}]}", "type another name: Order.lines makes a second class 'OrderLine'"),
    (
        "Order: {lines: [{kind: enum(a|b)}], line_kind: enum(a|b)}",
        "type another name: Order.lines makes a second class 'OrderLineKind'",
    ),
    (
        "Order: {lines: [{a: text}], order_line_a: text}",
        "type another name: Order.order_line_a makes a second 'OrderLineAValue'",
    ),
    (
        "Order: {line_parts: [{a: text}]}\nOrderLine: {parts: [{a: text}]}",
        "type another name: OrderLine.parts makes a second 'OrderLinePart'",
    ),
    ("Order: {lines: [{a: text}]}\nOrderLine: {a: text}", "type another name: Order.lines makes a second 'OrderLine'"),
]


@pytest.mark.parametrize(("answer", "message"), AGGREGATES)
def test_bad_aggregates_are_refused(validate: Validate, answer: str, message: str) -> None:
    said = validate("aggregates", answer)
    assert message in said
    assert "\n" not in said, "a prompt shows one line"


PLACES = [
    ("Invoice: number: text", "put 'number' on a line of its own, or the fields into braces (line 1, column 10)"),
    ("Invoice: {number: text", "close this '{': nothing in the text does (line 1, column 10)"),
    ("Invoice: {number: text}}", "leave out this '}', or type '{' before (line 1, column 24)"),
    ("Invoice: [number: text}", "leave out this '}', or type '{' before (line 1, column 23)"),
    ("Invoice:\n\tnumber: text", "type spaces instead of this tab (line 2, column 1)"),
    ("Invoice:\n  a: text\n   b: money", "indent 'b' like 'a': that has its type already (line 3, column 4)"),
    ("Invoice:\n    a: text\n  b: money", "indent 'b' by 4 spaces: the entries above are (line 3, column 3)"),
    ("Invoice:\r\n  a: text\r\n  b text", "type 'name: type': 'b text' has no colon (line 3, column 3)"),
    ("Invoice:\n  a:text", "type a space after the colon: 'a:text' is one name for YAML (line 2, column 3)"),
    ("Invoice: {a: text b: text}", "type a comma before 'b': each entry has one colon (line 1, column 19)"),
    ('Invoice: {a: "text}', "close this quote on the same line (line 1, column 14)"),
    ("Invoice: {a: &x text}", "type a letter instead of '&': that is a sign of YAML (line 1, column 14)"),
    ("Invoice: {a: text} {b: text}", "type a comma in front of this '{' (line 1, column 20)"),
    ("Invoice: {a: text} b", "type a new line before 'b' (line 1, column 20)"),
    ("Invoice: {: text}", "type a name in front of this colon (line 1, column 11)"),
    (
        "Invoice: {a: decimal(12, 2), 'a': text}",
        "keep one or rename the other: Invoice.a is there twice (line 1, column 30)",
    ),
    (
        "# Order: x\nOrder:\n  # a: b\n  a: text # b: c\n  b: int",
        "type 'integer': Order.b has 'int', which is no field type (line 5, column 3)",
    ),
    (
        "Order: {a: int}\nOrders: {b: text}",
        "type 'integer': Order.a has 'int', which is no field type (line 1, column 9)",
    ),
    ("Orders:\n  a: text", "type 'Order': Orders is a plural; or, if it is none, 'OrdersRecord' (line 1, column 1)"),
    ('{"Order":{"a":"int"}}', "type 'integer': Order.a has 'int', which is no field type (line 1, column 11)"),
    ("Order: {\n  customer: Custmer,\n}", "line 2, column 3"),
]


@pytest.mark.parametrize(("answer", "message"), PLACES)
def test_a_mistake_is_named_with_its_line_and_column(validate: Validate, answer: str, message: str) -> None:
    assert message in validate("aggregates", answer)
    assert "\n" not in validate("aggregates", answer)


@pytest.mark.slow
def test_no_text_ends_the_run_with_an_error_of_yaml(ask: Ask, validate: Validate) -> None:
    """Each text that lacks or repeats one character is accepted or refused by a sentence."""
    with pytest.raises(ValueError, match=r"question 'aggregates': put 'number' on a line .*\(line 1, column 10\)"):
        ask(aggregates="Invoice: number: text")
    text = "Order:\n  lines: [{a: decimal(2,1)?}]\n  'b': text # c\nTag: {d: \"text\", e: enum(x|y) = x}\n"
    for place in range(len(text)):
        for broken in (text[:place] + text[place + 1 :], text[:place] + text[place] + text[place:]):
            assert isinstance(validate("aggregates", broken), str)


GOOD_AGGREGATES = """\
Invoice: {a: string, b: string(1), c: string(1000)?, d: text?, e: integer, f: decimal(1,0), g: decimal(38,38)?}
line-item:
  a: money?   # a comment: with a colon
  b: boolean
  c: "date"
  d: datetime?
  e: uuid
  f: decimal(12, 2) ?
purchase_order:
  number: enum(low|very_high)?
  amount: money
"""


@pytest.mark.parametrize(
    "answer",
    [
        GOOD_AGGREGATES,
        "{Order: {a: text?, b: money}}",
        "Order:\r\n  a: text?\r\n",
        {"Country": {"status": "none", "a": "text"}},
        "Order: {reminder: none, a: text}",
        "Order: {reminder: text}",
        "Order: {audit: text, created_by: text}",
        "Caller: {audit: caller, name: text}\nState: {events: state, name: text}",
        "Order: {customer: Customer, user: line-item?, group: LineItem}\nCustomer: {a: text}\nline_item: {c: customer}",
        "Order: {lines: [{sku: string, kind: enum(a|b)? = a, price: money}], entries: [{a: decimal(2, 1)?}]}",
        "Order:\n  lines:\n    - sku: text\n      number: integer = 1\n  number: text",
        "Order:\n  lines:\n  - sku: text\n  number: text",
        {"Order": {"lines": [{"sku": "text"}]}},
        "Order: {a: string(2)? unique, b: integer  unique, c: uuid unique, d: string=new, e: integer? = -5, f: text = a b}",
        "Order:\n  a: decimal(5, 2) = -1.5  # a comment\n  b: enum(x|y)? = y\n  c: decimal(2,2) = 0\n  d: boolean =false",
    ],
)
def test_good_aggregates_are_accepted(validate: Validate, answer: object) -> None:
    assert validate("aggregates", answer) == ""


MODELS = [fields.RequestModel, fields.PatchModel, fields.ResponseModel, Contract]


@pytest.mark.parametrize("name", sorted({name for model in MODELS for name in dir(model) if not name.startswith("_")}))
def test_no_field_takes_a_name_of_the_models(validate: Validate, name: str) -> None:
    assert validate("aggregates", f"Invoice: {{{name}: text}}").count(f"Invoice.{name}") == 1


@pytest.mark.slow
def test_a_free_field_name_is_free(validate: Validate) -> None:
    for name in words("fields.txt") | words("sql-reserved.txt") | words("python-keywords.txt"):
        message = validate("aggregates", {"Invoice": {name: "text"}})
        suggestion = re.search("type '(.*?)'", message)
        assert suggestion, name
        assert validate("aggregates", {"Invoice": {suggestion[1]: "text"}}) == ""


REFUSED = [
    *(("service_name", *row) for row in SERVICE_NAMES),
    *ANSWERS,
    *(("aggregates", *row) for row in AGGREGATES),
]


@pytest.mark.slow
def test_a_prompt_of_eighty_columns_shows_the_remedy_of_each_refusal(validate: Validate) -> None:
    for question, answer, _ in REFUSED:
        if len(str(answer)) > 40:
            continue  # no prompt shows all of a longer answer
        message = re.sub(r" \(line \d+, column \d+\)$", "", validate(question, answer))  # a prompt may cut the place
        before = f"Validation error for question '{question}': "
        remedy = re.split("[:,] ", message)[0]
        assert len(before + remedy) <= 80, f"Copier's prompt cuts the remedy of {message}"
        assert len(message) <= 80 or message.find("text, integer") > 0, f"the prompt of fleet new cuts {message}"


# Computed answers


BOUNDARY = ["limited_by_monolith", "separate_team", "ready_for_consistency"]


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (["unknown", "unknown", "unknown"], "undecided"),
        (["yes", "no", "unknown"], "undecided"),
        (["yes", "unknown", "yes"], "service"),
        (["no", "yes", "yes"], "service"),
        (["unknown", "no", "no"], "monolith"),
        (["no", "no", "yes"], "monolith"),
    ],
)
def test_two_of_three_decide(rendered: Render, given: list[str], verdict: str) -> None:
    assert rendered("verdict", "default", **dict(zip(BOUNDARY, given, strict=True))) == verdict


def test_a_monolith_is_not_created_by_default(ask: Ask) -> None:
    monolith = {"separate_team": "no", "ready_for_consistency": "no"}
    with pytest.raises(ValueError, match="type yes to create it anyway"):
        ask(service_name="billing", **monolith)
    with pytest.raises(ValueError, match="type yes to create it anyway"):
        ask(service_name="billing", create_anyway="no", **monolith)
    assert ask(service_name="billing", create_anyway="yes", **monolith)["create_anyway"] is True


def test_all_names_follow_from_the_service_name(ask: Ask) -> None:
    answers = ask(service_name="user-profile", ci="gitlab", aggregates="User: {name: text}")
    assert answers["package"] == "user_profile"
    assert answers["service_title"] == "User profile"
    assert (answers["has_github"], answers["has_gitlab"], answers["has_money"]) == (False, True, False)


@pytest.mark.slow
def test_both_pipelines_and_money(ask: Ask) -> None:
    answers = ask(service_name="billing", ci="both")
    assert (answers["has_github"], answers["has_gitlab"], answers["has_money"]) == (True, True, True)


@pytest.mark.parametrize(
    ("style", "computed"),
    [
        ("sync", (False, False, False)),
        ("events", (True, True, False)),
        ("queues", (True, False, True)),
        ("events-and-queues", (True, True, True)),
    ],
)
def test_the_style_decides_on_messaging_events_and_queues(ask: Ask, style: str, computed: tuple[bool, ...]) -> None:
    answers = ask(service_name="billing", messaging_style=style)
    assert tuple(answers[name] for name in ("has_messaging", "has_events", "has_queues")) == computed
    assert answers["has_nats"] is (style != "sync")


@pytest.mark.parametrize("broker", ["nats", "kafka", "rabbitmq"])
def test_a_service_has_one_broker_or_no_broker_without_messages(ask: Ask, broker: str) -> None:
    brokers = ("nats", "kafka", "rabbitmq")
    chosen = ask(service_name="billing", messaging_style="events", broker=broker)
    assert [name for name in brokers if chosen[f"has_{name}"]] == [broker]
    silent = ask(service_name="billing", broker=broker)
    assert [name for name in brokers if silent[f"has_{name}"]] == []


PARTS = {"fields", "columns", "children", "errors", "referrers"}


def test_a_list_is_a_child_entity(ask: Ask) -> None:
    answer = "Order: {number: text, lines: [{sku: string(40), price: money?}], tag_names: [{a: text}]}"
    answers = ask(service_name="billing", aggregates=answer)
    [order] = answers["aggregate_list"]
    assert [field["name"] for field in order["fields"]] == ["number", "lines", "tag_names"]
    assert [field["name"] for field in order["columns"]] == ["number"]
    assert [(each["name"], each["plural"], each["field"]) for each in order["children"]] == [
        ("OrderLine", "order_lines", "lines"), ("OrderTagName", "order_tag_names", "tag_names")
    ]  # fmt: skip
    assert [(field["name"], field["type"], field["optional"]) for field in order["children"][0]["fields"]] == [
        ("sku", "string", False), ("price", "money", True)
    ]  # fmt: skip
    assert answers["has_money"] is True


def test_the_aggregates_in_full(ask: Ask) -> None:
    invoice, item, order = ask(service_name="billing", aggregates=GOOD_AGGREGATES)["aggregate_list"]
    assert {key: value for key, value in item.items() if key not in PARTS} == {
        "name": "LineItem", "singular": "line_item", "plural": "line_items", "path": "line-items",
        "label": "line item", "plural_label": "line items", "life_cycle": True, "reminders": True, "verb": "activate", "done": "activated",
        "state_events": False, "audited": False,
        "Done": "Activated", "revision": "0002", "down_revision": "0001",
    }  # fmt: skip
    assert (invoice["verb"], invoice["Done"], invoice["down_revision"]) == ("issue", "Issued", None)
    assert (order["verb"], order["done"], order["down_revision"]) == ("place", "placed", "0002")
    plain = {
        "optional": False, "size": None, "precision": None, "scale": None, "values": [], "unique": False, "default": None,
        "reference": None, "child": None,
    }  # fmt: skip
    assert invoice["fields"] == [
        plain | {"name": "a", "type": "string", "size": 200},
        plain | {"name": "b", "type": "string", "size": 1},
        plain | {"name": "c", "type": "string", "size": 1000, "optional": True},
        plain | {"name": "d", "type": "text", "optional": True},
        plain | {"name": "e", "type": "integer"},
        plain | {"name": "f", "type": "decimal", "precision": 1, "scale": 0},
        plain | {"name": "g", "type": "decimal", "precision": 38, "scale": 38, "optional": True},
    ]
    assert [(field["type"], field["optional"]) for field in item["fields"]] == [
        ("money", True), ("boolean", False), ("date", False), ("datetime", True), ("uuid", False), ("decimal", True),
    ]  # fmt: skip
    assert order["fields"][0] == plain | {
        "name": "number", "type": "enum", "optional": True, "values": ["low", "very_high"]
    }  # fmt: skip


def test_an_aggregate_publishes_its_state_if_the_answer_asks_for_state_events(ask: Ask) -> None:
    answer = "Country: {status: none, events: state, name: text}\nShow: {events: integer, name: text}"
    country, show = ask(service_name="billing", aggregates=answer)["aggregate_list"]
    assert (country["state_events"], [field["name"] for field in country["fields"]]) == (True, ["name"])
    assert (show["state_events"], [field["name"] for field in show["fields"]]) == (False, ["events", "name"])


def test_an_aggregate_has_audit_columns_if_the_answer_has_the_line_audit_caller(ask: Ask) -> None:
    answer = "Caller: {audit: caller, events: state, name: text}\nShow: {audit: integer, name: text}"
    caller, show = ask(service_name="billing", aggregates=answer, auth="oidc")["aggregate_list"]
    assert (caller["audited"], [field["name"] for field in caller["fields"]]) == (True, ["name"])
    assert (show["audited"], [field["name"] for field in show["fields"]]) == (False, ["audit", "name"])


@pytest.mark.parametrize(
    "answers", [{"auth": "none"}, {"auth": "none", "aggregates": {"Order": {"audit": "caller", "a": "text"}}}]
)
def test_audit_columns_without_callers_are_refused_at_their_place(ask: Ask, answers: Answers) -> None:
    text = {"aggregates": "Country: {name: text}\nOrder:\n  a: text\n  audit: caller\n"}
    place = r" \(line 4, column 3\)" if "aggregates" not in answers else ""
    with pytest.raises(ValueError, match=f"leave it out, or use -d auth=oidc: Order.audit needs callers, .*{place}"):
        ask(service_name="billing", **(text | answers))


def test_a_migration_follows_the_migrations_of_referenced_tables(ask: Ask) -> None:
    answer = "Order: {buyer: Customer, c: Country}\nCustomer: {country: Country?}\nTag: {a: text}\nCountry: {a: text}\n"
    made = {each["name"]: each for each in ask(service_name="billing", aggregates=answer)["aggregate_list"]}
    assert list(made) == ["Order", "Customer", "Tag", "Country"]
    chain = {name: (each["revision"], each["down_revision"]) for name, each in made.items()}
    assert chain == {
        "Order": ("0004", "0003"), "Customer": ("0003", "0002"), "Tag": ("0001", None), "Country": ("0002", "0001")
    }  # fmt: skip
    assert [field["name"] for field in made["Order"]["fields"]] == ["buyer_id", "c_id"]
    assert [error["code"] for error in made["Order"]["errors"]] == [
        "order_buyer_unknown", "order_c_unknown", "customer_has_orders", "country_has_orders"
    ]  # fmt: skip
    assert [each["code"] for each in made["Country"]["referrers"]] == ["country_has_orders", "country_has_customers"]


def test_an_aggregate_goes_without_a_life_cycle_or_without_reminders_alone(ask: Ask) -> None:
    answer = "Country: {status: none, name: text}\nInvoice: {number: text, reminder: none}\n"
    country, invoice = ask(service_name="billing", aggregates=answer)["aggregate_list"]
    assert [(each["life_cycle"], each["reminders"]) for each in (country, invoice)] == [(False, False), (True, False)]
    assert [[field["name"] for field in each["fields"]] for each in (country, invoice)] == [["name"], ["number"]]


def test_a_data_file_may_hold_a_mapping(ask: Ask) -> None:
    mapping = {"Invoice": {"total": "money", "rate": "decimal(5, 2)?"}}
    as_text = ask(service_name="billing", aggregates="Invoice: {total: money, rate: decimal(5, 2)?}")
    assert ask(service_name="billing", aggregates=mapping)["aggregate_list"] == as_text["aggregate_list"]
    with pytest.raises(ValueError, match=r"leave out Invoice\.id"):
        ask(service_name="billing", aggregates={"Invoice": {"id": "uuid"}})


@pytest.mark.parametrize(
    ("name", "plural"),
    [
        ("Invoice", "invoices"), ("Category", "categories"), ("Day", "days"), ("Address", "addresses"),
        ("Box", "boxes"), ("Branch", "branches"), ("Status_report", "status_reports"), ("Person", "people"),
        ("SalesPerson", "sales_people"), ("HTTPCheck", "http_checks"), ("Analysis", "analyses"), ("Sms", "smses"),
        ("Campus", "campuses"), ("Warehouse", "warehouses"), ("Series", "serieses"), ("Purchase", "purchases"),
        ("Lens", "lenses"), ("Atlas", "atlases"), ("Bus", "buses"), ("Index", "indices"), ("Hero", "heroes"),
        ("Prize", "prizes"), ("Tie", "ties"), ("Hypothesis", "hypotheses"), ("Entry", "entries"),
    ],
)  # fmt: skip
def test_english_plurals(rendered: Render, name: str, plural: str) -> None:
    [aggregate] = json.loads(rendered("aggregate_list", "default", aggregates={name: {"a": "text"}}))
    assert aggregate["plural"] == plural
    assert rendered("aggregates", "validator", aggregates={name: {"a": "text"}}) == ""


# Stored answers, and answers that are left out


def test_the_answers_file_is_readable_and_gives_the_same_answers_again(copy: Copy) -> None:
    lines = "Parcel: {lines: [{sku: string(40) , rate: decimal(5, 2)?}], priority: integer=1}\n"
    first = copy("first", service_name="billing", aggregates=GOOD_AGGREGATES + lines)
    file = first.dst_path / ".copier-answers.yml"
    assert "aggregates: |\n  Invoice:\n    a: string\n" in file.read_text()
    assert (
        "    lines:\n      - sku: string(40)\n        rate: decimal(5,2)?\n    priority: integer = 1\n"
        in file.read_text()
    )
    stored = {name: value for name, value in yaml.safe_load(file.read_text()).items() if name[0] != "_"}
    asked = {name for name, question in questions().items() if question.get("when") is not False}
    assert set(stored) == asked - {"create_anyway", "broker", "sagas", "chassis_index", "platform_team"} | {"seeded"}
    second = copy("second", **stored)
    assert second.answers.combined["aggregate_list"] == first.answers.combined["aggregate_list"]
    assert (second.dst_path / ".copier-answers.yml").read_text() == file.read_text()


def test_a_service_from_before_the_question_keeps_the_parts_of_then_and_a_new_service_takes_keys(
    questionnaire: Path, copy: Copy
) -> None:
    service = copy("billing").dst_path
    answers = service / ".copier-answers.yml"
    assert yaml.safe_load(answers.read_text())["chassis_parts"] == ["idempotency"]
    answers.write_text(answers.read_text().replace(NEW_PARTS, ""))
    copier.run_recopy(str(service), defaults=True, overwrite=True, **OPTIONS)
    parts = set(questions()["chassis_parts"]["choices"].values()) - {"neighbours", "idempotency"}
    assert {*yaml.safe_load(answers.read_text())["chassis_parts"]} == parts
    copier.run_recopy(str(service), data={"chassis_parts": "[lists]"}, defaults=True, overwrite=True, **OPTIONS)
    assert yaml.safe_load(answers.read_text())["chassis_parts"] == ["lists"]


@pytest.mark.parametrize("given", [{"service_name": "billing"}, {"service_name": "billing", "domain": "shop"}])
def test_a_service_whose_name_is_given_again_is_no_new_service(copy: Copy, given: dict[str, str]) -> None:
    """A renamed service, and a data file with some of the answers, must not turn identity on or take parts away."""
    service = copy("billing", auth="none").dst_path
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(NEW_PARTS, "").replace("auth: none\n", ""))
    copier.run_recopy(str(service), data=given, defaults=True, overwrite=True, **OPTIONS)
    recorded = yaml.safe_load(answers.read_text())
    assert (recorded["auth"], *(part in recorded["chassis_parts"] for part in ("lists", "idempotency"))) == (
        "none",
        True,
        False,
    )


def test_a_service_whose_answers_are_all_given_again_is_no_new_service(copy: Copy) -> None:
    """A portal gives its data file at each update."""
    service = copy("billing", auth="none").dst_path
    answers = service / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(NEW_PARTS, "").replace("auth: none\n", ""))
    given = {name: value for name, value in yaml.safe_load(answers.read_text()).items() if not name.startswith("_")}
    copier.run_recopy(str(service), data=given, defaults=True, overwrite=True, **OPTIONS)
    recorded = yaml.safe_load(answers.read_text())
    assert (recorded["auth"], *(part in recorded["chassis_parts"] for part in ("lists", "idempotency"))) == (
        "none",
        True,
        False,
    )


@pytest.mark.slow
def test_the_answers_file_remembers_which_examples_there_were(copy: Copy) -> None:
    def remembered(folder: str, **answers: Any) -> Any:
        answers = {"service_name": "billing", "auth": "none", **answers}
        made = copy(folder, **answers).dst_path / ".copier-answers.yml"
        return yaml.safe_load(made.read_text()).get("seeded")

    assert remembered("sync") is None
    assert remembered("callers", auth="oidc") == ["identity"]
    assert remembered("events", messaging_style="events") == ["events"]
    assert remembered("both", messaging_style="events-and-queues") == ["events", "queues"]
    assert remembered("off", messaging_style="sync", seeded=["events"]) == ["events"]
    assert remembered("more", messaging_style="queues", seeded=["events"]) == ["events", "queues"]


@pytest.mark.parametrize(
    ("ci", "there"), [("github", {".github"}), ("gitlab", {".gitlab-ci.yml"}), ("both", {".github", ".gitlab-ci.yml"})]
)
def test_only_the_chosen_pipelines_are_there_and_no_cache(copy: Copy, ci: str, there: set[str]) -> None:
    made = copy(service_name="billing", ci=ci).dst_path
    assert {path.name for path in made.glob(".git*")} == there
    assert [path.name for path in (made / "chassis").iterdir()] == ["README.md"]


def commit(folder: Path, tag: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", tag)
    git(folder, "tag", tag)


@pytest.mark.slow
def test_an_update_leaves_the_teams_files_alone(questionnaire: Path, tmp_path: Path) -> None:
    source = shutil.copytree(questionnaire, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    git(source, "init", "--quiet")
    commit(source, "v1.0.0")
    service = tmp_path / "billing"
    copier.run_copy(str(source), service, defaults=True, **OPTIONS)
    git(service, "init", "--quiet")
    (service / "README.md").write_text("# ours\n")
    (service / "tests" / "test_main.py").unlink()
    commit(service, "ours")

    for name in ("README.md", "Makefile", "chassis/README.md", "tests/test_main.py", "src/{{ package }}/new.py"):
        (source / "template" / name).write_text("second\n")
    (source / "template" / "docs" / "runbook.md").unlink()
    commit(source, "v2.0.0")
    copier.run_update(service, defaults=True, overwrite=True, **OPTIONS)

    assert (service / "README.md").read_text() == "# ours\n"
    assert not (service / "tests" / "test_main.py").exists()
    assert not (service / "src" / "billing" / "new.py").exists()
    assert (service / "docs" / "runbook.md").exists()
    assert (service / "Makefile").read_text() == (service / "chassis" / "README.md").read_text() == "second\n"

    copier.run_recopy(service, defaults=True, overwrite=True, **OPTIONS)
    assert (service / "README.md").read_text() == "# ours\n"


@pytest.mark.slow
@pytest.mark.parametrize("later", [copier.run_update, copier.run_recopy])
def test_a_service_of_before_stays_without_identity_and_a_new_service_keeps_identity(
    questionnaire: Path, tmp_path: Path, later: Callable[..., Any]
) -> None:
    source = shutil.copytree(questionnaire, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    git(source, "init", "--quiet")
    commit(source, "v1.0.0")
    new, old = tmp_path / "sales", tmp_path / "billing"
    for service in (new, old):
        copier.run_copy(str(source), service, defaults=True, **OPTIONS)
    answers = old / ".copier-answers.yml"
    # as a version without the question wrote the file
    answers.write_text(answers.read_text().replace("auth: oidc\n", ""))
    for service in (new, old):
        git(service, "init", "--quiet")
        commit(service, "ours")
    (source / "template/Makefile").write_text("second\n")
    commit(source, "v2.0.0")
    for service, recorded in ((new, "oidc"), (old, "none")):
        later(service, defaults=True, overwrite=True, **OPTIONS)
        assert yaml.safe_load((service / ".copier-answers.yml").read_text())["auth"] == recorded
        assert (service / "Makefile").read_text() == "second\n"


def test_a_new_service_goes_without_identity_only_if_the_answer_says_so(ask: Ask, prompts: Prompts) -> None:
    assert ask(service_name="billing")["has_identity"] is True
    assert ask(service_name="billing", auth="none")["has_identity"] is False
    assert "auth" not in prompts()


# The command line


def copier_copy(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "copier", "copy", *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_line_refuses_before_writing(questionnaire: Path, tmp_path: Path) -> None:
    target = tmp_path / "billing"
    run = copier_copy(
        "--defaults", "-d", "aggregates={Invoice: {number: text, number: uuid}}", str(questionnaire), str(target)
    )
    assert run.returncode != 0
    assert (
        "-d aggregates: keep one or rename the other: Invoice.number is there twice (line 1, column 26)\n" in run.stderr
    )
    assert "Traceback" not in run.stderr
    assert not target.exists()


@pytest.mark.slow
def test_the_command_line_prints_the_next_steps(questionnaire: Path, tmp_path: Path) -> None:
    target = tmp_path / "my billing"
    run = copier_copy("--defaults", "-d", "service_name=billing", str(questionnaire), str(target))
    assert run.returncode == 0, run.stderr
    assert "Most teams should start with a monolith" in run.stderr
    assert f"cd '{target}' && git init -q && make setup && git add -A && git commit" in run.stderr
    assert "\n  make dev\n" in run.stderr


# The questions agree with copier.yml, the template and the docs


def test_nothing_needs_trust() -> None:
    text = (ROOT / "copier.yml").read_text()
    assert not re.search("^_(tasks|jinja_extensions|migrations):", text, re.MULTILINE)


def test_every_answer_is_consumed() -> None:
    tags = re.compile(r"{[{%].*?[%}]}", re.DOTALL)
    files = [path for part in ("template", "macros") for path in (ROOT / part).rglob("*")]
    texts = [str(path.relative_to(ROOT)) for path in files]
    texts += [path.read_text() for path in files if path.is_file() and path.suffix == ".jinja"]
    texts.append((ROOT / "questions/presence.jinja").read_text())
    excluded = re.search(r"^_exclude:\n(?:[ #].*\n)*", (ROOT / "copier.yml").read_text(), re.MULTILINE)
    assert excluded
    used = " ".join(tag for text in [*texts, excluded[0]] for tag in tags.findall(text))
    computed = {name: asked["default"] for name, asked in questions().items() if asked.get("when") is False}

    def consumed(answer: str) -> bool:
        word = re.compile(rf"\b{answer}\b")
        derived = [name for name, default in computed.items() if name != answer and word.search(default)]
        return bool(word.search(used)) or any(consumed(name) for name in derived)

    prompts = [name for name, asked in questions().items() if asked.get("when") is not False]
    prompts.remove("create_anyway")  # this answer decides whether there is any output
    assert [name for name in prompts if not consumed(name)] == []


def test_the_reference_page_is_fresh() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "generate_questions.py"))
    assert generator["PAGE"].read_text() == generator["page"](), "run `python docs/generate_questions.py`"
