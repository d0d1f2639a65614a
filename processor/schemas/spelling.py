"""Translates the keywords of a schema to draft 2020-12, without those that its draft ignores."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from processor.schemas.dialects import DRAFT_4, DRAFT_6, DRAFT_7, Dialect, asks

_COUNTS = ("minContains", "maxContains")
CONTENT = ("contentEncoding", "contentMediaType")
"""Annotations, except in two drafts."""

DYNAMIC = ("$dynamicRef", "$recursiveRef")
Words: TypeAlias = dict[str, Any]


def modern(schema: Mapping[str, Any], dialect: Dialect) -> Words:
    """Return the keywords that a draft applies, translated to 2020-12; subschemas stay as they are.

    `if` contains its `then` and `else` here, and `contains` its counts.
    """
    if not dialect.is_modern and isinstance(schema.get("$ref"), str):
        return {"$ref": schema["$ref"]}
    words = {word: value for word, value in schema.items() if dialect.reads(word) or not asks(word)}
    for word in CONTENT if dialect not in (DRAFT_6, DRAFT_7) else ():
        words.pop(word, None)
    if isinstance(words.get("format"), str) and not dialect.knows_format(words["format"]):
        del words["format"]
    if dialect is DRAFT_4:
        exclude_by_number(words)
    rest = words.pop("additionalItems", None)
    if isinstance(words.get("items"), list):
        words["prefixItems"] = words.pop("items")
        if rest is not None:
            words["items"] = rest
    for name, needed in words.pop("dependencies", {}).items():
        word = "dependentRequired" if isinstance(needed, list) else "dependentSchemas"
        words[word] = words.get(word, {}) | {name: needed}
    return words | _together(words, "if", "then", "else") | _together(words, "contains", *_COUNTS)


def exclude_by_number(words: Words) -> None:
    """Rewrite exclusive bounds as numbers, in place; draft-04 and OpenAPI 3.0 have a boolean for each."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(says := words.get(exclusive), bool):
            del words[exclusive]
            if says and bound in words:
                words[exclusive] = words.pop(bound)


def _together(words: Words, first: str, *others: str) -> Words:
    """Pop keywords that belong together, as one; the others have no effect without the first."""
    found = {word: words.pop(word) for word in (first, *others) if word in words}
    return {first: found} if first in found else {}
