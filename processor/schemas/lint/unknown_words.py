"""Finds keywords that a schema's draft doesn't define: typos, and those of other drafts and of tools."""

from collections.abc import Collection, Iterator
from typing import Any, Literal, TypeAlias

from processor.schemas.dialects import DRAFT_2020, KEYWORDS, Dialect
from processor.schemas.subschemas import Subschema
from processor.schemas.wording import listed, nearest, shown
from processor.wire.json_pointer import pointer

Level: TypeAlias = Literal["warning", "note"]
Oddity: TypeAlias = tuple[Level, str, str, str]
"""Level, kind, pointer and message of a remark."""

_NAMES_MAX = 8
_LOOKED_UP_MAX = 200
"""The limit of unknown keywords with a search for similar ones, at a millisecond each."""

_OPENAPI = ("nullable", "discriminator")
_TOOLS = """
    self example xml externalDocs tsType tsEnumNames tsImport goJSONSchema javaType javaName javaInterfaces
    existingJavaType javaEnumNames enumNames enumDescriptions markdownDescription markdownEnumDescriptions
    defaultSnippets errorMessage patternErrorMessage deprecationMessage doNotSuggest suggestSortText
    allowComments allowTrailingCommas fileMatch comment propertyOrder options links media version
"""
_OF_TOOLS = frozenset(_TOOLS.split())
_STARTS = ("x-", "x_", "$$", "_", "//", "@", "#", "intellij", "vscode", "meta:", "xdm:")
_OLDER = {"divisibleBy": "multipleOf", "disallow": "not", "extends": "allOf"}
_INSTEAD = {
    "id": '"$id"',
    "definitions": '"$defs"',
    "dependencies": '"dependentRequired" or "dependentSchemas"',
    "additionalItems": '"items", beside "prefixItems"',
    "prefixItems": 'a list below "items"',
    "$recursiveRef": '"$dynamicRef"',
    "$recursiveAnchor": '"$dynamicAnchor"',
    "$dynamicRef": '"$ref"',
    "$anchor": 'a "$id" that begins with #',
    "dependentRequired": '"dependencies"',
    "dependentSchemas": '"dependencies"',
    "const": 'an "enum" of one value',
    "if": '"anyOf" of the cases',
}


class UnknownWords:
    """Checks the keywords of subschemas; `names_draft`: the whole schema declares its draft."""

    def __init__(self, *, names_draft: bool) -> None:
        self._names_draft = names_draft
        self._looked_up: set[str] = set()
        self._of_tools: dict[str, str] = {}
        """Each keyword of a tool, and its first place."""

    def remarks(self, place: Subschema, within: Collection[str]) -> Iterator[Oddity]:
        """Yield level, kind, pointer and message for each keyword that the draft doesn't define.

        `within` has the places that contain targets of references.
        """
        for word, value in place.schema.items() if isinstance(place.schema, dict) else ():
            known = KEYWORDS.get(word)
            at = place.at + pointer([word])
            if known and place.dialect in known.drafts:
                continue
            if known and not self._names_draft and known.drafts[-1] is not DRAFT_2020:
                yield _older(word, place.dialect, at)
            elif at in within:
                continue
            elif known and known.asks and word not in ("then", "else"):
                yield _of_other_drafts(word, place.dialect, at)
            elif known or self._is_of_tools(word, value, place):
                self._of_tools.setdefault(word, at)
            elif word in _OPENAPI:
                yield "warning", "openapi", at, _openapi(word, place.schema)
            elif word in _OLDER:
                message = f'"{word}" is a keyword of draft-03 and has no effect; write "{_OLDER[word]}"'
                yield "warning", "other draft", at, message
            else:
                instead = self._instead(word, value, place)
                yield "warning", "unknown word", at, f"unknown keyword {shown(word)} has no effect; {instead}"

    def of_tools(self) -> Iterator[Oddity]:
        """Yield one remark for all keywords of tools."""
        if self._of_tools:
            names = listed([shown(word) for word in self._of_tools], _NAMES_MAX)
            first = next(iter(self._of_tools.values()))
            yield "note", "annotation", first, f"no effect on validation: {names}"

    def _is_of_tools(self, word: str, value: Any, place: Subschema) -> bool:  # noqa: ANN401 - any JSON value
        return (
            word in _OF_TOOLS
            or word.startswith(_STARTS)
            or ":" in word
            # Names or dates of the whole schema.
            or (place.at == "" and isinstance(value, str) and not self._near(word, place))
            or (word == "nullable" and (value is False or _takes_null(place.schema)))
        )

    def _instead(self, word: str, value: Any, place: Subschema) -> str:  # noqa: ANN401 - any JSON value
        if near := self._near(word, place):
            return f'did you mean "{near}"?'
        if isinstance(value, dict) and isinstance(value.get("type"), str | list):
            return 'put a member of this name under "properties"'
        return "correct it, or prefix it with x- if it is an annotation"

    def _near(self, word: str, place: Subschema) -> str | None:
        if word not in self._looked_up and len(self._looked_up) >= _LOOKED_UP_MAX:
            return None
        self._looked_up.add(word)
        return nearest(word, [name for name, known in KEYWORDS.items() if place.dialect in known.drafts])


def _takes_null(schema: dict[str, Any] | bool) -> bool:
    if not isinstance(schema, dict):
        return schema
    types, cases = schema.get("type"), schema.get("anyOf")
    return (isinstance(types, list) and "null" in types) or (
        isinstance(cases, list) and {"type": "null"} in cases
    )


def _older(word: str, dialect: Dialect, at: str) -> Oddity:
    # Without `$schema`, such a keyword may show that another draft was meant.
    effect = "still accepted" if dialect.holds(word) else f"no effect in {dialect.name}"
    advice = f"declare the draft with $schema or --draft, or write {_INSTEAD[word]}"
    return "warning", "other draft", at, f'"{word}" is a keyword of {_span(word)}, {effect}; {advice}'


def _of_other_drafts(word: str, dialect: Dialect, at: str) -> Oddity:
    if dialect.holds(word):
        return "note", "other draft", at, f'"{word}" is a keyword of {_span(word)}; still accepted'
    instead = f"write {_INSTEAD[word]}, or declare" if word in _INSTEAD else "declare"
    message = f'"{word}" is a keyword of {_span(word)}, no effect in {dialect.name}'
    return "warning", "other draft", at, f"{message}; {instead} the draft with $schema or --draft"


def _span(word: str) -> str:
    drafts = KEYWORDS[word].drafts
    if drafts[-1] is DRAFT_2020:
        return drafts[0].name if len(drafts) == 1 else f"{drafts[0].name} and later"
    return drafts[0].name if len(drafts) == 1 else f"{drafts[0].name} to {drafts[-1].name}"


def _openapi(word: str, schema: dict[str, Any] | bool) -> str:
    if word == "discriminator":
        instead = 'write "const" for the member in each schema of the "oneOf"'
        return f'"{word}" is a keyword of OpenAPI and has no effect; {instead}'
    types = schema.get("type") if isinstance(schema, dict) else None
    listed = [*(types if isinstance(types, list) else [types]), "null"]
    instead = f'"type": {shown(listed)}' if types else '"anyOf": [{…}, {"type": "null"}]'
    return f'"nullable" is a keyword of OpenAPI 3.0 and has no effect: null is rejected; write {instead}'
