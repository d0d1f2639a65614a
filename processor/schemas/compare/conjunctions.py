"""Collects all constraints on one value: its keywords, and those of `allOf` and `$ref`, in draft 2020-12."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import jsonschema_rs

from processor.schemas.compare.normal_form import normal_text
from processor.schemas.dialects import DRAFT_4, DRAFT_2020, Dialect, asks, dialect_of
from processor.schemas.references import Reference, SchemaDocument, schema_of_draft
from processor.schemas.spelling import CONTENT, DYNAMIC, Words, modern
from processor.schemas.subschemas import Subschema, joined, rebuilt

UNTRANSLATED = "x-untranslated"
_WALKED_MAX = 1_000_000


class ModernSchema:
    """A schema in draft 2020-12. Targets are cached, so that one subschema is one object.

    Raises SettingsError for a reference that does not resolve.
    """

    def __init__(self, definition: dict[str, Any] | bool, *, formats: bool) -> None:
        self._document = SchemaDocument(definition, dialect_of(definition))
        self._formats = formats
        self._definition = definition
        self._of_drafts: dict[str, Subschema] = {}
        self._walked = 0

    @property
    def root(self) -> Subschema:
        """The root schema."""
        return self._document.place("")

    @cached_property
    def _is_dynamic(self) -> bool:
        return any(word in str(self._definition) for word in DYNAMIC)

    def conjunction(self, nodes: Sequence[Subschema]) -> "Conjunction":
        """Return the combined constraints of several subschemas on one value. Raises SettingsError."""
        parts: list[tuple[Subschema, Words]] = []
        seen: set[int] = set()
        refuses = False
        pending = list(reversed(nodes))
        while pending:
            node = self._entered(pending.pop())
            if node.schema is False:
                refuses = True
            if not isinstance(node.schema, dict) or id(node.schema) in seen:
                continue
            seen.add(id(node.schema))
            words = self._words(node.schema, node.dialect)
            parts.append((node, words))
            pending += [node.within(branch) for branch in reversed(words.pop("allOf", ()))]
            if isinstance(reference := words.pop("$ref", None), str):
                pending.append(self._target(node, reference))
        return Conjunction(self, nodes, parts, refuses)

    def whole(self, node: Subschema, words: Words | None = None) -> str:
        """Serialize a subschema, or some of its keywords, with all its references.

        Equal texts mean equal constraints, also across drafts. Raises ValueError if the total work is too
        large.
        """
        whole = self.bundled(node, words)
        also = jsonschema_rs.canonical.json.to_string(whole.get(UNTRANSLATED))
        return normal_text(list(whole["$defs"].values())) + also

    def bundled(self, node: Subschema, words: Words | None = None) -> dict[str, Any]:
        """Return a subschema and all its references as one schema of 2020-12, without annotations.

        Constraints that 2020-12 can't express stand below UNTRANSLATED.
        """
        found = [node]
        parts = [self._spelled(node, found) if words is None else self._spelled_words(node, words, found)]
        while len(parts) < len(found):
            parts.append(self._spelled(found[len(parts)], found))
        definitions = {str(at): part for at, part in enumerate(parts)}
        whole = {"$schema": DRAFT_2020.uri, "$ref": "#/$defs/0", "$defs": definitions}
        return whole | ({UNTRANSLATED: self._definition} if self._is_dynamic else {})

    def _spelled(self, node: Subschema, found: list[Subschema]) -> Any:  # noqa: ANN401 - any JSON value
        self._walked += 1
        if self._walked > _WALKED_MAX:
            raise ValueError("too many references")
        node = self._entered(node)
        if not isinstance(node.schema, dict):
            return node.schema
        return self._spelled_words(node, self._words(node.schema, node.dialect), found)

    def _spelled_words(self, node: Subschema, words: Words, found: list[Subschema]) -> dict[str, Any]:
        """Rewrite keywords that are modern already; targets of references are added to `found`."""
        spelled: dict[str, Any] = {}
        for together in ("if", "contains"):
            words = words | words.get(together, {})
        for word, value in words.items():
            if word == "$ref":
                spelled[word] = f"#/$defs/{_place_of(self._target(node, value), found)}"
            elif asks(word) or word in CONTENT:
                spelled[word] = rebuilt(
                    word, value, DRAFT_2020, lambda part, *_: self._spelled(node.within(part), found)
                )
        # In draft-04 1.0 is not an integer; the other drafts differ in the meaning of these keywords.
        says_otherwise = words.keys() & {"unevaluatedItems", "contentMediaType", "contentEncoding"}
        if says_otherwise or (node.dialect is DRAFT_4 and "integer" in str(words.get("type"))):
            spelled[UNTRANSLATED] = node.dialect.name
        return spelled

    def _words(self, schema: dict[str, Any], dialect: Dialect) -> Words:
        words = modern(schema, dialect)
        if not self._formats:
            words.pop("format", None)
        return words

    def _target(self, node: Subschema, text: str) -> Subschema:
        reference = Reference(node, "$ref", text, *joined(node.base, text))
        if reference.uri in self._document.resources:
            return self._document.place(self._document.target(reference))
        uri = f"{reference.uri}#{reference.fragment}"
        if uri not in self._of_drafts:
            schema = schema_of_draft(reference)
            dialect = dialect_of(schema, node.dialect)
            self._of_drafts[uri] = replace(node.within(schema), base=reference.uri, dialect=dialect)
        return self._of_drafts[uri]

    def _entered(self, node: Subschema) -> Subschema:
        """Return a subschema with the base URI of its own `$id`."""
        return self._document.place_of(node.schema) or node


@dataclass(frozen=True, slots=True)
class Conjunction:
    """All constraints on one value: the subschemas with their keywords, and whether one is `false`."""

    schema: ModernSchema
    nodes: Sequence[Subschema]
    parts: list[tuple[Subschema, Words]]
    refuses: bool

    def all(self, word: str) -> list[Any]:
        """Return each part's value of a keyword."""
        return [words[word] for _, words in self.parts if word in words]

    def texts(self, *words: str) -> list[str]:
        """Return each part's values of these keywords, with references, as texts."""
        said = [(node, {word: part[word] for word in words if word in part}) for node, part in self.parts]
        return sorted(self.schema.whole(node, some) for node, some in said if some)

    def whole(self) -> list[str]:
        """Return all constraints as texts."""
        return sorted(map(self.schema.whole, self.nodes))

    def required(self) -> set[str]:
        """Return the required members."""
        return {name for names in self.all("required") for name in names}

    def branches(self, word: str) -> list[list[Subschema]]:
        """Return each list of subschemas below a keyword."""
        return [[node.within(one) for one in words[word]] for node, words in self.parts if word in words]

    def cases(self) -> list[list[Subschema]]:
        """Return each `if` with its `then` and `else`."""
        return [
            [node.within(words["if"].get(word, True)) for word in ("if", "then", "else")]
            for node, words in self.parts
            if "if" in words
        ]

    def names(self) -> list[str]:
        """Return the described members, in order."""
        return list(dict.fromkeys(name for properties in self.all("properties") for name in properties))

    def member(self, name: str) -> list[Subschema]:
        """Return the constraints on a member."""
        return self.member_matching({at for at in self.patterns() if matches(at, name)}, name)

    def patterns(self) -> frozenset[str]:
        """Return the patterns of `patternProperties`."""
        return frozenset(pattern for patterns in self.all("patternProperties") for pattern in patterns)

    def member_matching(self, patterns: AbstractSet[str], name: str | None = None) -> list[Subschema]:
        """Return the constraints on a member that matches just these patterns; None: an unknown name."""
        found = []
        for node, words in self.parts:
            named = words.get("properties", {})
            mine = [named[name]] if name in named else []
            mine += [
                words["patternProperties"][at] for at in words.get("patternProperties", ()) if at in patterns
            ]
            if not mine and "additionalProperties" in words:
                mine = [words["additionalProperties"]]
            found += [node.within(schema) for schema in mine]
        return found

    def item(self, at: int) -> list[Subschema]:
        """Return the constraints on the item at an index."""
        found = []
        for node, words in self.parts:
            prefix = words.get("prefixItems", ())
            if at < len(prefix):
                found.append(node.within(prefix[at]))
            elif "items" in words:
                found.append(node.within(words["items"]))
        return found


def _place_of(target: Subschema, found: list[Subschema]) -> int:
    for at, one in enumerate(found):
        if one.schema is target.schema:
            return at
    found.append(target)
    return len(found) - 1


@lru_cache(maxsize=10_000)
def matches(pattern: str, name: str) -> bool:
    """Return whether a pattern matches anywhere in a name."""
    return jsonschema_rs.is_valid({"pattern": pattern}, name)
