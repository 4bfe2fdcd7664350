"""`fleet client` makes no code of a document's words, uses no name twice, and ends on a document that was made to last."""

import json
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import httpx2
import pytest

from fleet.client import code, uses
from fleet.errors import FleetError
from fleet.main import app
from fleet.service.openapi import Document

Node = dict[str, Any]
TEXT: Node = {"type": "string"}


def of(**properties: Node) -> Node:
    return {"type": "object", "properties": properties}


def answer(schema: Node) -> Node:
    return {"description": "", "content": {"application/json": {"schema": schema}}}


def named(schema: str) -> Node:
    return {"$ref": f"#/components/schemas/{schema}"}


def document(
    responses: Node, schemas: Node | None = None, parameters: list[Node] | None = None, name: str = "find"
) -> Node:
    operation = {"operationId": name, "responses": responses, "parameters": parameters or []}
    return {"openapi": "3.1.0", "paths": {"/v1/it": {"get": operation}}, "components": {"schemas": schemas or {}}}


def refusal(content: Node, name: str = "find") -> str:
    """Return the reason why the operation is refused, or an empty text if the operation is written."""
    return uses.select(Document(content), [name], None, partial(code.compose, "pets")).refused.get(name, "")


def written(content: Node, name: str = "find") -> ModuleType:
    selection = uses.select(Document(content), [name], None, partial(code.compose, "pets"))
    assert not selection.refused
    module = ModuleType("pets")
    exec(code.write("pets", uses.pruned(selection.content), Path("none")), vars(module))
    return module


def test_a_character_that_no_file_can_hold_is_refused_without_the_generated_code() -> None:
    content = document({"200": {**answer(of(a=TEXT)), "description": ""}})
    content["paths"]["/v1/it"]["get"]["description"] = "\ud800"
    reason = refusal(content)
    assert reason.startswith("it is malformed: UnicodeEncodeError")
    assert len(reason) < 200


def test_a_status_is_not_code() -> None:
    status = "2 and open('owned', 'w')"
    content = document({"200": answer(named("FindAnswer2")), status: answer(of())}, {"FindAnswer2": of(a=TEXT)})
    assert refusal(content) == f"{status!r} is not a status"


def test_a_schema_imports_no_module() -> None:
    for keyword in ("customTypePath", "customBasePath"):
        schema = of(a={**TEXT, keyword: "antigravity.Anything"}) | {keyword: "antigravity.Anything"}
        assert "antigravity" not in code.compose("pets", document({"200": answer(schema)}))


def test_no_address_is_fetched_for_a_reference() -> None:
    asked = []

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.json"
        content = document({"200": answer(of(a={"$ref": address}))})
        with pytest.raises(FleetError, match="which is not a schema of components"):
            code.write("pets", content, Path("none"))  # a document of specs/uses that somebody has edited
        assert f"it refers to {address}, which is outside of the document" in refusal(content)
        server.shutdown()
    assert asked == []


@pytest.mark.parametrize("name", ["quote", "date", "datetime", "httpx2"])
async def test_an_operation_may_have_the_name_of_an_import(name: str) -> None:
    day = {"name": "day", "in": "query", "schema": {"type": "string", "format": "date"}}
    time = {"name": "time", "in": "query", "schema": {"type": "string", "format": "date-time"}}
    pet = {"name": "pet", "in": "path", "required": True, "schema": TEXT}
    content = document({"200": answer(of(a=TEXT))}, None, [pet, day, time], name)
    content["paths"] = {"/v1/{pet}": content["paths"]["/v1/it"]}
    module = written(content, name)
    asked = []
    transport = httpx2.MockTransport(lambda request: asked.append(request.url) or httpx2.Response(200, json={}))
    async with httpx2.AsyncClient(base_url="http://pets", transport=transport) as client:
        await getattr(module, f"{name}_")(client, "a/b")
    assert asked[0].raw_path == b"/v1/a%2Fb"


@pytest.mark.parametrize("name", ["Any", "BaseModel", "Field", "UUID", "Literal"])
def test_a_schema_may_have_the_name_of_an_import(name: str) -> None:
    module = written(document({"200": answer(named(name))}, {name: of(a=TEXT, b={})}))
    assert getattr(module, f"{name}Model").model_fields.keys() == {"a", "b"}


def test_two_things_of_one_name_are_refused() -> None:
    two = document({"204": {"description": ""}})
    two["paths"]["/v1/other"] = {"post": {**two["paths"]["/v1/it"]["get"], "operationId": "Find"}}
    query = [{"name": name, "in": "query", "schema": TEXT} for name in ("a-b", "a.b", "a b")]
    inline = {"type": "object", "properties": {"a": TEXT}}
    taken = {"Order": of(line=inline, other=named("Line")), "Line": of(b=TEXT)}
    both = {"200": answer(named("Order")), "201": answer(named("Line"))}
    schemas = {"Page_Pet_": of(pet=named("PagePet")), "PagePet": of(name=TEXT)}
    for content, reason in (
        (two, "POST /v1/other have the same name"),
        (document({"204": {}}, None, query), "its code would not be Python: duplicate argument"),
        (document(both, taken), "the generator of models gives Line another name"),
        (document({"200": answer(named("Page_Pet_"))}, schemas), "two schemas would be the class PagePet"),
        (
            document({"200": answer(named("PetsError"))}, {"PetsError": of(a=TEXT)}),
            "the module would have two meanings of PetsError",
        ),
    ):
        assert reason in refusal(content), reason


async def test_an_answer_is_read_by_its_status_and_then_by_the_range() -> None:
    module = written(document({"2XX": answer(of(a=TEXT)), "200": answer(of(b=TEXT)), "default": answer(of())}))
    other = written(document({"default": answer(of(c=TEXT))}))
    for function, status, fields in ((module.find, 200, {"b"}), (module.find, 206, {"a"}), (other.find, 200, {"c"})):
        transport = httpx2.MockTransport(lambda _, status=status: httpx2.Response(status, json={}))
        async with httpx2.AsyncClient(base_url="http://pets", transport=transport) as client:
            assert type(await function(client)).model_fields.keys() == fields


def test_a_property_may_have_the_name_of_a_keyword_and_any_value() -> None:
    schema = of(title={"title": "Title"}, tags={}, links={"minLength": 1}, **{"x-rank": {}})
    assert written(document({"200": answer(schema)})).FindAnswer.model_fields.keys() == {
        "title",
        "tags",
        "links",
        "x_rank",
    }


def test_an_operation_without_an_id_is_named_by_its_method_and_path() -> None:
    content = document({"200": answer(of(a=TEXT))})
    del content["paths"]["/v1/it"]["get"]["operationId"]
    module = written(content, "get_v1_it")
    assert module.GetV1ItAnswer.model_fields.keys() == {"a"}


def test_further_fields_of_a_type_are_ignored_like_other_unknown_fields() -> None:
    code_ = code.compose("pets", document({"200": answer(of(a=TEXT) | {"additionalProperties": TEXT})}))
    assert "__pydantic_extra__" not in code_  # a type checker refuses such a model
    content = document({"200": answer({"type": "object", "additionalProperties": TEXT})})
    assert "dict[str, str]" in code.compose("pets", content)


def test_a_document_that_doubles_with_each_reference_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".copier-answers.yml").write_text("service_name: billing\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEET_LIMIT_SECONDS", "0.3")
    doubled = {f"S{number}": {"anyOf": [named(f"S{number + 1}")] * 2} for number in range(60)} | {"S60": TEXT}
    content = document({"204": {}}, doubled, [{"name": "a", "in": "query", "schema": named("S0")}])
    Path("one.json").write_text(json.dumps(content))
    with pytest.raises(FleetError, match=r"the document of pets takes more than 0\.3 seconds"):
        app(["client", "pets", "find", "--from", "one.json"], standalone_mode=False)
    aliases = "\n".join(f"  {number}: &a{number} [*a{number - 1}, *a{number - 1}]" for number in range(1, 40))
    Path("two.yaml").write_text(f"openapi: 3.1.0\npaths: {{}}\nx-a:\n  0: &a0 a\n{aliases}\n")
    with pytest.raises(FleetError, match="its aliases make more than"):
        app(["client", "pets", "find", "--from", "two.yaml"], standalone_mode=False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"openapi": "3.1.0"}', "no operation of pets can be called"),
        ('{"openapi": "3.1.0", "components": null}', "the components are no object: restore the file from git"),
    ],
)
def test_a_damaged_file_of_uses_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".copier-answers.yml").write_text("service_name: billing\n")
    Path("specs/uses").mkdir(parents=True)
    Path("specs/uses/pets.json").write_text(content)
    with pytest.raises(FleetError, match=reason) as refused:
        app(["client", "pets"], standalone_mode=False)
    assert "\n" not in str(refused.value)


def test_a_module_that_is_not_utf_8_is_a_change_of_the_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".copier-answers.yml").write_text("service_name: billing\n")
    Path("one.json").write_text(json.dumps(document({"204": {}})))
    module = Path("src/billing/neighbours/pets.py")
    module.parent.mkdir(parents=True)
    module.write_bytes(b"# caf\xe9\n")
    with pytest.raises(FleetError, match=r"pets\.py has changes of the team, so nothing was written"):
        app(["client", "pets", "find", "--from", "one.json"], standalone_mode=False)
    assert module.read_bytes() == b"# caf\xe9\n"
