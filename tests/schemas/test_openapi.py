"""Tests the extraction of a complete schema from an API description, or from a document of definitions."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.errors import SettingsError
from processor.schemas.compiling import compile_schema
from processor.schemas.dialects import DRAFT_4, DRAFT_7, DRAFT_2019, DRAFT_2020
from processor.schemas.documents.openapi import referable, schema_within
from processor.schemas.documents.preparing import HowToRead, prepare

MONEY = {
    "type": "object",
    "required": ["amount"],
    "properties": {"amount": {"type": "number", "nullable": True}},
}


def an_openapi(version: str = "3.0.3", /, **schemas: Any) -> dict[str, Any]:
    return {
        "openapi": version,
        "info": {"title": "Shop", "version": "1"},
        "paths": {},
        "components": {"schemas": schemas},
    }


def an_asyncapi(version: str = "2.6.0", **components: Any) -> dict[str, Any]:
    info = {"title": "Shop", "version": "1"}
    return {"asyncapi": version, "info": info, "channels": {}, "components": components}


def taken(document: Any, pointer: str | None = "/components/schemas/Order") -> Any:
    return prepare(json.dumps(document).encode(), HowToRead(pointer=pointer))


def verdicts(schema: Any, *payloads: Any) -> list[bool]:
    return [compile_schema(schema).is_valid(payload) for payload in payloads]


def refusal(document: Any, pointer: str | None) -> str:
    with pytest.raises(SettingsError) as refused:
        taken(document, pointer)
    return str(refused.value)


# ── complete ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_schema_is_extracted_with_its_references_and_nothing_else() -> None:
    document = an_openapi(
        Order={"properties": {"total": {"$ref": "#/components/schemas/Money"}}},
        Money={"properties": {"code": {"$ref": "#/components/schemas/Code"}}},
        Code={"type": "string", "maxLength": 3},
        Other={"type": "string"},
    )

    schema = taken(document)

    assert schema == {
        "$schema": DRAFT_2020.uri,
        "properties": {"total": {"$ref": "#/$defs/Money"}},
        "$defs": {
            "Code": {"type": "string", "maxLength": 3},
            "Money": {"properties": {"code": {"$ref": "#/$defs/Code"}}},
        },
    }
    assert verdicts(schema, {"total": {"code": "EUR"}}, {"total": {"code": "EURO"}}) == [True, False]


def test_schemas_may_refer_to_themselves_and_to_each_other() -> None:
    document = an_openapi(
        Order={
            "type": "object",
            "properties": {
                "next": {"$ref": "#/components/schemas/Order"},
                "m": {"$ref": "#/components/schemas/A"},
            },
        },
        A={"type": "object", "properties": {"b": {"$ref": "#/components/schemas/B"}}},
        B={
            "type": "object",
            "properties": {
                "a": {"$ref": "#/components/schemas/A"},
                "o": {"$ref": "#/components/schemas/Order"},
            },
        },
    )

    schema = taken(document)

    assert schema["properties"]["next"] == {"$ref": "#"}
    assert verdicts(
        schema, {"next": {"m": {"b": {"a": {"b": {"o": {}}}}}}}, {"m": {"b": {"a": {"b": {"o": 1}}}}}
    ) == [True, False]


def test_two_schemas_with_one_name_stay_separate() -> None:
    document = an_openapi(
        Order={
            "properties": {
                "a": {"$ref": "#/components/schemas/Line"},
                "b": {"$ref": "#/components/x/Line"},
                "c": {"$ref": "#/components/schemas/Order/properties/a"},
            }
        },
        Line={"type": "string"},
    )
    document["components"]["x"] = {"Line": {"type": "integer"}}

    assert verdicts(taken(document), {"a": "", "b": 1, "c": ""}, {"a": 1}, {"b": ""}, {"c": 1}) == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize("name", ["a/b", "a~b", "a b", "ä", "A<B>", "100%", "a.b-c_d", "#", ""])
def test_any_name_can_be_referenced(name: str) -> None:
    step = name.replace("~", "~0").replace("/", "~1")
    encoded = step.replace("%", "%25").replace(" ", "%20").replace("#", "%23")
    document = an_openapi(
        **{name: {"type": "string"}}, Order={"items": {"$ref": f"#/components/schemas/{encoded}"}}
    )

    assert verdicts(taken(document), [""], [1]) == [True, False]
    assert taken(document, f"/components/schemas/{step}")["type"] == "string"
    assert taken(document, f"#/components/schemas/{encoded}")["type"] == "string"


def test_a_pointer_to_a_reference_selects_its_target() -> None:
    document = an_openapi(
        Order={"$ref": "#/components/schemas/Real", "nullable": True}, Real={"type": "object"}
    )

    assert taken(document) == {"$schema": DRAFT_2020.uri, "type": "object"}


def test_cyclic_references_terminate() -> None:
    document = an_openapi(Order={"$ref": "#/components/schemas/B"}, B={"$ref": "#/components/schemas/Order"})

    assert taken(document)


def test_an_unresolvable_reference_is_named() -> None:
    document = an_openapi(Order={"items": {"$ref": "#/components/schemas/Lost"}})

    assert refusal(document, "/components/schemas/Order") == (
        "$ref to '#/components/schemas/Lost', where an OpenAPI document has no schema"
    )


def test_a_reference_to_another_document_stays() -> None:
    document = an_openapi(Order={"items": {"$ref": "common.yaml#/components/schemas/Money"}})

    assert schema_within(document, "/components/schemas/Order")["items"] == {
        "$ref": "common.yaml#/components/schemas/Money"
    }


def test_data_that_looks_like_a_reference_stays_data() -> None:
    document = an_openapi(
        Order={
            "properties": {
                "$ref": {"type": "string"},
                "nullable": {"type": "boolean"},
                "example": {"type": "string"},
            },
            "enum": [{"$ref": "#/nowhere"}],
            "default": {"$ref": "#/nowhere", "nullable": True},
            "example": {"$ref": "#/nowhere"},
        }
    )

    schema = taken(document)

    assert schema["properties"].keys() == {"$ref", "nullable", "example"}
    assert (schema["enum"], schema["default"]) == (
        [{"$ref": "#/nowhere"}],
        {"$ref": "#/nowhere", "nullable": True},
    )


# ── OpenAPI 3.0 ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "string", "nullable": True}, ["a", None], [1]),
        ({"type": "string", "nullable": False}, ["a"], [1, None]),
        ({"type": "string"}, ["a"], [None]),
        ({"type": "string", "enum": ["a"], "nullable": True}, ["a", None], ["b"]),
        ({"type": "string", "enum": ["a", None], "nullable": True}, ["a", None], ["b"]),
        ({"type": "object", "nullable": True, "required": ["a"]}, [None, {"a": 1}], [{}, 1]),
        (
            {"nullable": True, "allOf": [{"$ref": "#/components/schemas/Money"}]},
            [None, {"amount": None}],
            [{}, 1],
        ),
        (
            {"type": "object", "nullable": True, "allOf": [{"$ref": "#/components/schemas/Money"}]},
            [None],
            [{}],
        ),
        ({"nullable": True, "oneOf": [{"type": "string"}, {"type": "integer"}]}, [None, "", 1], [1.5]),
        ({"nullable": True, "enum": ["a"]}, ["a", None], ["b"]),
        ({"nullable": True}, [None, 1, "a"], []),
        ({"$ref": "#/components/schemas/Money", "nullable": True}, [{"amount": 1}], [None, {}]),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, [0.1], [0]),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": False}, [0], [-1]),
        ({"type": "number", "maximum": 9, "exclusiveMaximum": True, "minimum": 1}, [1], [9, 0]),
        ({"type": "number", "exclusiveMaximum": True}, [9], ["a"]),
        (
            {"type": "array", "items": {"type": "integer", "format": "int32", "nullable": True}},
            [[1, None]],
            [["a"]],
        ),
        (
            {"type": "object", "additionalProperties": {"type": "string", "nullable": True}},
            [{"a": None}],
            [{"a": 1}],
        ),
        ({"not": {"type": "string", "nullable": True}}, [1], ["a", None]),
        (
            {
                "type": "object",
                "discriminator": {"propertyName": "kind", "mapping": {"a": "#/components/schemas/Lost"}},
                "xml": {"name": "o"},
                "externalDocs": {"url": "x"},
                "readOnly": True,
                "deprecated": True,
                "example": {"a": 1},
                "x-internal": True,
            },
            [{}],
            [1],
        ),
        *(
            ({"type": "string", "format": form}, ["a"], [1])
            for form in ("password", "binary", "byte", "int64", "x")
        ),
    ],
)
@pytest.mark.parametrize("version", ["3.0.0", "3.0.4", "2.0"])
def test_keywords_of_openapi_3_0_keep_their_meaning(
    schema: Any, valid: list[Any], invalid: list[Any], version: str
) -> None:
    document = an_openapi(version, Order=schema, Money=MONEY)
    if version == "2.0":
        document["swagger"] = document.pop("openapi")

    found = taken(document)

    assert verdicts(found, *valid, *invalid) == [True] * len(valid) + [False] * len(invalid)
    assert '"nullable"' not in json.dumps(found)


def test_swagger_has_its_definitions_elsewhere_and_its_version_may_be_a_number() -> None:
    document = b"swagger: 2.0\ninfo: {}\npaths: {}\ndefinitions:\n  Order: {type: string, x-nullable: true}\n"

    schema = prepare(document, HowToRead(pointer="/definitions/Order"), "a.yaml")

    assert verdicts(schema, "a", None, 1) == [True, True, False]


# ── OpenAPI 3.1, AsyncAPI ─────────────────────────────────────────────────────────────────────────────


def test_openapi_3_1_is_2020_12_with_siblings_of_references() -> None:
    document = an_openapi(
        "3.1.0",
        Order={"$ref": "#/components/schemas/Money", "required": ["b"], "nullable": True},
        Money={"type": ["object", "null"], "required": ["a"], "exclusiveMinimum": 1, "example": {"a": 1}},
    )

    schema = taken(document)

    assert schema["$schema"] == DRAFT_2020.uri
    assert verdicts(schema, {"a": 1, "b": 1}, None, {"a": 1}, {"b": 1}) == [True, True, False, False]


@pytest.mark.parametrize(
    ("named", "uri"),
    [
        ("https://spec.openapis.org/oas/3.1/dialect/base", DRAFT_2020.uri),
        (DRAFT_7.uri, DRAFT_7.uri),
        (DRAFT_2019.uri, DRAFT_2019.uri),
    ],
)
def test_openapi_3_1_may_name_another_dialect(named: str, uri: str) -> None:
    document = an_openapi("3.1.1", Order={"items": {"$ref": "#/components/schemas/A"}}, A={"type": "string"})

    schema = taken(document | {"jsonSchemaDialect": named})

    assert schema["$schema"] == uri
    assert verdicts(schema, [""], [1]) == [True, False]


def test_an_unknown_dialect_is_quoted() -> None:
    document = an_openapi("3.1.0", Order={}) | {"jsonSchemaDialect": "https://example.com/mine"}

    assert "'https://example.com/mine'" in refusal(document, "/components/schemas/Order")


ASYNC = an_asyncapi(
    messages={
        "Order": {"payload": {"$ref": "#/components/schemas/Order"}, "headers": {"type": "object"}},
        "Named": {"$ref": "#/components/messages/Order"},
        "Old": {
            "schemaFormat": "application/schema+json;version=draft-04",
            "payload": {"minimum": 0, "exclusiveMinimum": True},
        },
        "Seven": {
            "schemaFormat": "application/vnd.aai.asyncapi+yaml;version=2.6.0",
            "payload": {"type": "string"},
        },
        "Api": {
            "schemaFormat": "application/vnd.oai.openapi;version=3.0.0",
            "payload": {"type": "string", "nullable": True},
        },
        "Three": {
            "payload": {
                "schemaFormat": "application/schema+json;version=draft-07",
                "schema": {"type": "string"},
            }
        },
        "Avro": {"schemaFormat": "application/vnd.apache.avro;version=1.9.0", "payload": {"type": "record"}},
        "Bare": {"name": "x"},
    },
    schemas={
        "Order": {"type": "object", "properties": {"id": {"$ref": "#/components/schemas/Id"}}},
        "Id": {"type": "string", "maxLength": 2, "$id": "https://example.com/id"},
        "Held": {"schemaFormat": "application/schema+json;version=draft-07", "schema": {"type": "integer"}},
    },
) | {"channels": {"orders": {"publish": {"message": {"$ref": "#/components/messages/Order"}}}}}


@pytest.mark.parametrize(
    ("pointer", "draft", "valid", "invalid"),
    [
        ("/components/messages/Order", DRAFT_7, {"id": "a"}, {"id": "abc"}),
        ("/components/messages/Order/payload", DRAFT_7, {"id": "a"}, {"id": "abc"}),
        ("/components/messages/Named", DRAFT_7, {"id": "a"}, {"id": "abc"}),
        ("/channels/orders/publish/message", DRAFT_7, {"id": "a"}, {"id": "abc"}),
        ("/components/schemas/Order", DRAFT_7, {"id": "a"}, {"id": "abc"}),
        ("/components/schemas/Held", DRAFT_7, 1, "a"),
        ("/components/messages/Old", DRAFT_4, 1, 0),
        ("/components/messages/Seven", DRAFT_7, "", 1),
        ("/components/messages/Api", DRAFT_2020, None, 1),
        ("/components/messages/Three", DRAFT_7, "", 1),
    ],
)
def test_a_pointer_to_an_asyncapi_message_selects_its_payload(
    pointer: str, draft: Any, valid: Any, invalid: Any
) -> None:
    schema = taken(ASYNC, pointer)

    assert schema["$schema"] == draft.uri
    assert verdicts(schema, valid, invalid) == [True, False]


def test_an_avro_payload_is_rejected() -> None:
    assert "schemaFormat is 'application/vnd.apache.avro;version=1.9.0'" in refusal(
        ASYNC, "/components/messages/Avro"
    )


def test_an_inline_schema_in_openapi_is_found() -> None:
    media = {"schema": {"type": "string", "nullable": True}}
    document = an_openapi() | {
        "paths": {"/a": {"post": {"requestBody": {"content": {"application/json": media}}}}}
    }
    pointer = "/paths/~1a/post/requestBody/content/application~1json"

    assert verdicts(taken(document, pointer), None, 1) == [True, False]
    assert taken(document, pointer + "/schema") == taken(document, pointer)
    assert pointer + "/schema" in refusal(document, None)


# ── words ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            an_openapi(**{name: {} for name in "ABCDEFG"}),
            "an OpenAPI document, not a schema; select one of its schemas with --pointer, such as "
            + ", ".join(f"/components/schemas/{name}" for name in "ABCDE")
            + " and 2 more",
        ),
        (ASYNC, "an AsyncAPI document, not a schema"),
        ({"swagger": "2.0", "paths": {}, "definitions": {"A": {}}}, "such as /definitions/A"),
        (an_openapi(), "such as /components/schemas/NAME (none was found)"),
        (
            {
                "openapi": "3.1.0",
                "info": {},
                "webhooks": {"a": {"post": {"requestBody": {"content": {"*/*": {"schema": {}}}}}}},
            },
            "such as /webhooks/a/post/requestBody/content/*~1*/schema",
        ),
    ],
)
def test_a_whole_api_description_is_not_a_schema(document: Any, words: str) -> None:
    assert words in refusal(document, None)


@pytest.mark.parametrize(
    ("pointer", "words"),
    [
        ("/components/schemas/Oder", "this place does not exist; did you mean /components/schemas/Order?"),
        ("Order", "this place does not exist; did you mean /components/schemas/Order?"),
        ("/components/schemas/order", "this place does not exist; did you mean /components/schemas/Order?"),
        (
            "#/components/schemas/Xyz",
            "this place does not exist; expected a pointer to a schema, such as /components/schemas/Order",
        ),
        ("/components/schemas", "this place is not a schema"),
        ("/components/schemas/Order/properties", "this place is not a schema"),
        ("/components/schemas/Order/properties/id/type", "this place is not a schema"),
        ("/info", "this place is not a schema"),
        ("", "this place is not a schema"),
    ],
)
def test_a_pointer_to_no_schema_gives_a_list_of_schemas(pointer: str, words: str) -> None:
    document = an_openapi(Order={"properties": {"id": {"type": "string"}}})

    assert refusal(document, pointer).startswith(f"--pointer {pointer}: {words}")


@pytest.mark.parametrize("name", ["properties", "definitions", "schemas", "payload", "schema"])
def test_a_schema_may_have_the_name_of_a_keyword(name: str) -> None:
    assert taken(an_openapi(**{name: {"type": "string"}}), f"/components/schemas/{name}")["type"] == "string"


def test_a_schema_for_api_descriptions_is_a_schema() -> None:
    schema = {"type": "object", "properties": {"openapi": {"type": "string"}}, "required": ["openapi"]}

    assert taken(schema, None) == schema


# ── JSON Schema itself ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"$defs": {"O": {"items": {"$ref": "#/$defs/M"}}, "M": {"type": "string"}}}, "/$defs/O"),
        (
            {
                "$schema": DRAFT_7.uri,
                "definitions": {"O": {"items": {"$ref": "#/definitions/M"}}, "M": {"type": "string"}},
            },
            "/definitions/O",
        ),
        (
            {
                "$schema": DRAFT_4.uri,
                "id": "http://e.com/x",
                "definitions": {"O": {"items": {"$ref": "x#/definitions/M"}}, "M": {"type": "string"}},
            },
            "#/definitions/O",
        ),
        (
            {
                "$id": "https://e.com/x",
                "$defs": {"O": {"items": {"$ref": "m"}}, "M": {"$id": "m", "type": "string"}},
            },
            "/$defs/O",
        ),
        ({"$defs": {"O": {"items": {"$ref": "#m"}}, "M": {"$anchor": "m", "type": "string"}}}, "/$defs/O"),
        (
            {
                "$schema": DRAFT_7.uri,
                "definitions": {"O": {"items": {"$ref": "#m"}}, "M": {"$id": "#m", "type": "string"}},
            },
            "/definitions/O",
        ),
        (
            {
                "$defs": {
                    "O": {
                        "$id": "https://e.com/o",
                        "items": {"$ref": "#/$defs/M"},
                        "$defs": {"M": {"type": "string"}},
                    }
                }
            },
            "/$defs/O",
        ),
        (
            {"properties": {"o": {"items": {"$ref": "#/properties/m"}}, "m": {"type": "string"}}},
            "/properties/o",
        ),
        (
            {
                "$defs": {
                    "O": {"items": {"$dynamicRef": "#m"}},
                    "M": {"$dynamicAnchor": "m", "type": "string"},
                }
            },
            "/$defs/O",
        ),
        (
            {
                "$schema": DRAFT_2019.uri,
                "type": ["string", "array"],
                "$defs": {"O": {"type": "array", "items": {"$recursiveRef": "#"}}},
            },
            "/$defs/O",
        ),
        ({"x": [{"items": {"$ref": "#/x/1"}}, {"type": "string"}]}, "/x/0"),
        (
            {
                "$defs": {
                    "O": {"$id": "https://e.com/o", "$schema": DRAFT_7.uri, "items": [{"type": "string"}]}
                }
            },
            "/$defs/O",
        ),
        (
            {
                "$defs": {
                    "O": {"allOf": [{"$ref": "#/$defs/P"}]},
                    "P": {"$id": "https://e.com/o", "$schema": DRAFT_7.uri, "items": [{"type": "string"}]},
                }
            },
            "/$defs/O",
        ),
        ({"items": {"type": "string"}}, ""),
    ],
)
def test_a_definition_is_extracted_with_its_references(document: Any, pointer: str) -> None:
    assert verdicts(taken(document, pointer), [""], [1]) == [True, False]


@pytest.mark.parametrize(
    ("pointer", "words"),
    [
        ("/$defs/Oder", "this place does not exist; did you mean /$defs/Order?"),
        ("/$defs", "this place is not a schema"),
        ("/type", "this place is not a schema"),
    ],
)
def test_an_invalid_pointer_into_a_json_schema_gives_advice(pointer: str, words: str) -> None:
    assert words in refusal({"type": "object", "$defs": {"Order": {}}}, pointer)


NAMES = st.sampled_from(["A", "B", "C/d"])


def references(prefix: str) -> st.SearchStrategy[Any]:
    return NAMES.map(lambda name: {"$ref": prefix + name.replace("/", "~1")})


def some_schemas(prefix: str) -> st.SearchStrategy[Any]:
    leaf = st.sampled_from([{"type": "integer"}, {"type": "string"}, {"minimum": 2}, True, {}]) | references(
        prefix
    )
    return st.recursive(
        leaf,
        lambda inner: st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
                "items": inner,
                "required": st.sampled_from([["a"], ["b"]]),
                "additionalProperties": inner,
            },
        ),
        max_leaves=6,
    )


PAYLOADS = st.recursive(
    st.sampled_from([1, 2, "a", None]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=2)
    ),
    max_leaves=6,
)


@given(st.fixed_dictionaries({name: some_schemas("#/$defs/") for name in ("A", "B", "C/d")}), NAMES, PAYLOADS)
def test_an_extracted_schema_validates_as_in_its_document(schemas: Any, name: str, payload: Any) -> None:
    pointer = "/$defs/" + name.replace("/", "~1")
    whole = {"$schema": DRAFT_2020.uri, "$ref": "#" + pointer, "$defs": schemas}

    try:
        there = DRAFT_2020.validator(whole, offline=True)
    except ValueError:
        return  # It refers to itself for the same value, without end.

    assert DRAFT_2020.validator(taken({"$defs": schemas}, pointer), offline=True).is_valid(
        payload
    ) == there.is_valid(payload)


# ── referred to by others ─────────────────────────────────────────────────────────────────────────────


def test_a_referenced_api_description_keeps_its_places_in_json_schema_keywords() -> None:
    money = {"type": "string", "nullable": True}
    document = an_openapi(
        A={"properties": {"b": {"$ref": "#/components/schemas/B", "nullable": True}}}, B=money
    )

    found = referable(document)

    assert found == {
        "$schema": DRAFT_2020.uri,
        "components": {
            "schemas": {
                "A": {"properties": {"b": {"$ref": "#/components/schemas/B"}}},
                "B": {"type": ["string", "null"]},
            }
        },
    }


@pytest.mark.parametrize(
    ("document", "uri"), [(ASYNC, DRAFT_7.uri), (an_openapi("3.1.0", A={}), DRAFT_2020.uri)]
)
def test_a_referenced_api_description_declares_its_draft(document: Any, uri: str) -> None:
    assert referable(document) == document | {"$schema": uri}


def test_a_referenced_schema_stays_unchanged() -> None:
    assert referable({"$defs": {"A": {"nullable": True}}}) == {"$defs": {"A": {"nullable": True}}}


SHOP = """
openapi: 3.0.3
info: {title: Shop, version: "1"}
paths: {}
components:
  schemas:
    Order:
      type: object
      properties:
        total: {$ref: 'common/money.yaml#/components/schemas/Money'}
        code: {$ref: 'common/code.json'}
        back: {$ref: 'common/money.yaml#/components/schemas/Back'}
    Local: {type: object, properties: {x: {type: string, nullable: true}}}
"""
COMMON = """
openapi: 3.0.3
info: {title: Common, version: "1"}
paths: {}
components:
  schemas:
    Money: {type: number, minimum: 0, exclusiveMinimum: true, nullable: true}
    Back: {type: object, properties: {local: {$ref: '../shop.yaml#/components/schemas/Local'}}}
"""


def test_api_descriptions_may_refer_to_each_other(tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "money.yaml").write_text(COMMON)
    (tmp_path / "common" / "code.json").write_text('{"type": "string", "maxLength": 2}')
    how = HowToRead(pointer="/components/schemas/Order", others=(tmp_path / "common",))

    schema = prepare(SHOP.encode(), how, str(tmp_path / "shop.yaml"))

    good = [{"total": 1}, {"total": None}, {"code": "ab"}, {"back": {"local": {"x": None}}}]
    bad = [{"total": 0}, {"code": "abc"}, {"back": {"local": {"x": 1}}}]
    assert verdicts(schema, *good, *bad) == [True] * len(good) + [False] * len(bad)


SPLIT = {
    "one.yaml": "{type: number, nullable: true, minimum: 0, exclusiveMinimum: true, xml: {name: a}}",
    "many.yaml": "{Money: {type: number, nullable: true}, Fee: {$ref: '#/Money', maximum: 1}}",
    "common.yaml": "components: {schemas: {Money: {type: number, nullable: true}}}",
    "deep/order.json": """{"type": "object", "properties": {
        "nullable": {"type": "string", "nullable": true},
        "example": {"type": "string", "nullable": true},
        "default": {"$ref": "../one.yaml"}}}""",
    "enum.yaml": "{enum: [{type: number, nullable: true}]}",
    "other.json": """{"$schema": "http://json-schema.org/draft-07/schema#", "type": "number",
        "nullable": true, "exclusiveMinimum": 0}""",
}


@pytest.mark.parametrize("head", [{"openapi": "3.0.3"}, {"swagger": "2.0"}])
@pytest.mark.parametrize(
    ("reference", "valid", "invalid"),
    [
        ("one.yaml", [None, 1], [0, "a"]),
        ("many.yaml#/Money", [None, 1], ["a"]),
        ("many.yaml#/Fee", [None, 2], ["a"]),
        ("common.yaml#/components/schemas/Money", [None, 1], ["a"]),
        (
            "deep/order.json",
            [{"nullable": None, "example": None, "default": None}, {"default": 1}],
            [{"nullable": 1}, {"example": 1}, {"default": 0}],
        ),
        ("enum.yaml", [{"type": "number", "nullable": True}], [None, 1]),
        ("other.json", [1], [None, 0]),
    ],
)
def test_files_of_one_api_description_share_its_dialect(
    tmp_path: Path, head: Any, reference: str, valid: Any, invalid: Any
) -> None:
    for name, text in SPLIT.items():
        (tmp_path / "schemas" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "schemas" / name).write_text(text)
    schemas = {"Order": {"type": "object", "properties": {"x": {"$ref": f"schemas/{reference}"}}}}
    api = head | {"info": {}, "paths": {}, "components": {"schemas": schemas}, "definitions": schemas}
    pointer = "/definitions/Order" if "swagger" in head else "/components/schemas/Order"
    how = HowToRead(pointer=pointer, others=(tmp_path / "schemas",))

    schema = prepare(json.dumps(api).encode(), how, str(tmp_path / "api.json"))

    payloads = [{"x": value} for value in (*valid, *invalid)]
    assert verdicts(schema, *payloads) == [True] * len(valid) + [False] * len(invalid)
    assert "xml" not in str(schema)


def test_a_definition_is_extracted_by_the_keywords_of_its_draft() -> None:
    words = {"items": [{"type": "string"}], "additionalItems": {"$ref": "#/definitions/M"}}
    document = {"definitions": {"O": words, "M": {"type": "integer"}}}
    how = HowToRead(pointer="/definitions/O", draft=DRAFT_7)

    schema = prepare(json.dumps(document).encode(), how)

    assert verdicts(schema, ["a", 1], ["a", "b"]) == [True, False]
