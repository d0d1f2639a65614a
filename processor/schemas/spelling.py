"""The words of a schema as 2020-12 spells them; those that its draft does not read are left out."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from processor.schemas.dialects import DRAFT_4, DRAFT_6, DRAFT_7, Dialect, asks

_COUNTS = ("minContains", "maxContains")
CONTENT = ("contentEncoding", "contentMediaType")
"""Notes alone, but in two drafts."""

DYNAMIC = ("$dynamicRef", "$recursiveRef")
Words: TypeAlias = dict[str, Any]


def modern(schema: Mapping[str, Any], dialect: Dialect) -> Words:
    """Give the words that a draft reads in a schema, as 2020-12 spells them; what is below them stays.

    `if` has `then` and `else` within it here, and `contains` its counts.
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
    """Write excluded bounds as numbers, in place; draft-04 and OpenAPI 3.0 have a boolean beside each."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(says := words.get(exclusive), bool):
            del words[exclusive]
            if says and bound in words:
                words[exclusive] = words.pop(bound)


def _together(words: Words, first: str, *others: str) -> Words:
    """Take words that belong together out, as one; they do nothing without their first."""
    found = {word: words.pop(word) for word in (first, *others) if word in words}
    return {first: found} if first in found else {}
