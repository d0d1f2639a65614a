"""The page at /docs: the OpenAPI document as HTML that needs no script, no font and no internet."""

from collections.abc import Mapping
from html import escape
from typing import Any

import orjson

from producers.gateway.http.problems import STATUSES, TITLES

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
body{color:#1c2733;background:#fff}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid #d5dce3}
code,pre{font:14px/1.45 ui-monospace,monospace;background:#f3f5f7;border-radius:4px}
code{padding:0 .25em}pre{padding:.75rem;white-space:pre-wrap;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;margin:1rem 0}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #e4e8ec}
.method{background:#1d5fa8;color:#fff;border-radius:4px;padding:.1rem .5rem;font-size:.8em}
@media(prefers-color-scheme:dark){body{color:#d8dee5;background:#14191f}code,pre{background:#222a33}
td,th,h2{border-color:#35404b}a{color:#7db5f0}}
"""


def docs_page(document: Mapping[str, Any], statuses: Mapping[int, str]) -> bytes:
    """Write the page of an OpenAPI document; `statuses` says what each refusal means."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{escape(document['info']['title'])}</title><style>{_STYLE}</style>",
        f"<h1>{escape(document['info']['title'])}</h1>",
        *(f"<p>{_marked(text)}</p>" for text in document["info"]["description"].strip().split("\n\n")),
        "<p>For programs: <a href=/openapi.json>/openapi.json</a></p>",
    ]
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            parts += _operation(path, method, described)
    parts += _problems(statuses)
    parts += _schemas(document["components"]["schemas"])
    return "".join(parts).encode()


def _operation(path: str, method: str, described: Mapping[str, Any]) -> list[str]:
    anchor, verb = escape(described["operationId"]), method.upper()
    parts = [
        f"<h2 id='{anchor}'><span class=method>{verb}</span> {escape(path)}</h2>",
        f"<p><b>{_ended(described['summary'])}</b> {_marked(described.get('description', ''))}</p>",
    ]
    for media_type, content in described.get("requestBody", {}).get("content", {}).items():
        parts += _requests(path, media_type, content)
    if parameters := described.get("parameters"):
        rows = [(found["name"], _marked(found["description"])) for found in parameters]
        parts.append(_table(("header", "what it says"), rows))
    rows = [(status, _answer(found)) for status, found in sorted(described["responses"].items())]
    parts.append(_table(("status", "answer"), rows))
    return parts


def _requests(path: str, media_type: str, content: Mapping[str, Any]) -> list[str]:
    examples = [found["value"] for found in content.get("examples", {}).values()] or [content["example"]]
    return [
        f"<p><code>{escape(media_type)}</code></p>",
        *(
            "<pre>"
            + escape(
                f"curl -i http://127.0.0.1:8090{path} \\\n"
                f"  -H 'Authorization: Bearer ep_…'{_key(example)} \\\n"
                f"  -H 'Content-Type: {media_type}' \\\n  -d '{orjson.dumps(example).decode()}'"
            )
            + "</pre>"
            for example in examples
        ),
    ]


def _key(example: Any) -> str:  # noqa: ANN401 - any JSON value
    """Show the key where an event has no id of its own."""
    events = example if isinstance(example, list) else [example]
    return "" if all("id" in event for event in events) else " -H 'Idempotency-Key: my-1'"


def _answer(found: Mapping[str, Any]) -> str:
    names = [
        f"<a href='#{name}'>{name}</a>"
        for content in found.get("content", {}).values()
        for name in _references(content.get("schema", {}))
    ]
    return _marked(found["description"]) + (f" {' or '.join(names)}" if names else "")


def _references(schema: Mapping[str, Any]) -> list[str]:
    if "$ref" in schema:
        return [schema["$ref"].rsplit("/", 1)[-1]]
    return [name for part in schema.get("anyOf", []) for name in _references(part)]


def _problems(statuses: Mapping[int, str]) -> list[str]:
    return [
        "<h2 id=problems>Problems</h2><table><tr><th>code<th>status<th>meaning</tr>",
        *(
            f"<tr id='{code}'><td><code>{code}</code><td>{STATUSES[code]}<td>{_ended(title)} "
            f"{_marked(_unless_said(title, statuses.get(STATUSES[code], '')))}</tr>"
            for code, title in TITLES.items()
        ),
        "</table>",
    ]


def _ended(text: str) -> str:
    """Write a text with the full stop that it may lack."""
    return escape(text) if text.endswith(("?", ".")) else f"{escape(text)}."


def _unless_said(title: str, meaning: str) -> str:
    return "" if meaning.rstrip(".") == title else meaning


def _schemas(schemas: Mapping[str, Any]) -> list[str]:
    parts = ["<h2>Shapes</h2>"]
    for name, schema in schemas.items():
        shown = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
        parts.append(
            f"<h3 id='{escape(name)}'>{escape(name)}</h3><p>{_marked(schema.get('description', ''))}</p>"
            f"<details><summary>JSON Schema</summary><pre>{escape(shown)}</pre></details>"
        )
    return parts


def _table(heads: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    """Write a table whose second column is HTML already."""
    lines = [f"<tr><td><code>{escape(str(first))}</code><td>{second}</tr>" for first, second in rows]
    return f"<table><tr><th>{heads[0]}<th>{heads[1]}</tr>{''.join(lines)}</table>"


def _marked(text: str) -> str:
    """Write the two marks that our texts use, bold and code, as HTML."""
    pieces = escape(text).split("`")
    text = "".join(f"<code>{piece}</code>" if odd % 2 else piece for odd, piece in enumerate(pieces))
    pieces = text.split("**")
    return "".join(f"<b>{piece}</b>" if odd % 2 else piece for odd, piece in enumerate(pieces))
