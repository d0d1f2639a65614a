"""What a JSON Schema may cost, known before its use: no validation can be interrupted, so it must end soon.

    subschemas ─▶ parts: what is asked of the same value, by allOf, $ref and the like
               ─▶ states: which subschemas meet at one value, for every way down into a payload
               ─▶ nanoseconds: what the dearest payload of VALUES_MAX values can cost

A reference may lead to the same place twice, and then twice from there: that doubles at every step, of the
schema or of the payload. Some state then soon costs more than the budget, and the schema is refused.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias
from urllib.parse import unquote

from processor.strict_json import VALUES_MAX
from processor.validation.costs import cost_ns, pattern_trouble
from processor.validation.schema_text import schema_text

BYTES_MAX = 128 * 1024
DEPTH_MAX = 64
SUBSCHEMAS_MAX = 4000
REFERENCES_MAX = 1000
STEPS_MAX = 16
"""From one subschema to the next for the same value. The search for errors begins anew at each of them."""

NANOSECONDS_MAX = 2_000_000_000
"""What the dearest payload may cost: two seconds on the machine where the costs were measured."""

_STATES_MAX = 4000
_STEPS_MAX = 400_000
"""Bounds on the analysis itself, which would else be as dear as what it looks for."""

Path: TypeAlias = str
State: TypeAlias = frozenset[tuple[Path, int]]
"""Which subschemas are asked of one value, and how often each."""

_SAME_VALUE_ONE = ("not", "if", "then", "else", "$ref", "$dynamicRef")
_SAME_VALUE_LIST = ("allOf", "anyOf", "oneOf")
_SAME_VALUE_MAP = ("dependentSchemas", "dependencies")
_INSIDE_ONE = (
    "items",
    "contains",
    "additionalProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "propertyNames",
)
_INSIDE_MAP = ("properties", "patternProperties")
_MAPS = ("$defs", "definitions", *_SAME_VALUE_MAP, *_INSIDE_MAP)
_LISTS = (*_SAME_VALUE_LIST, "prefixItems")
_ONES = ("not", "if", "then", "else", *_INSIDE_ONE)


def budget_trouble(definition: dict[str, Any] | bool) -> str | None:
    """Say where, and which bound, a schema breaks so that a validation could take too long; None: nowhere.

    The definition is a valid schema of 2020-12 by its form; what its words mean is looked at here.
    """
    try:
        _check(definition)
    except _Trouble as trouble:
        return str(trouble)
    return None


class _Trouble(Exception):
    """A bound is broken; the message says which and where."""


def _check(definition: dict[str, Any] | bool) -> None:
    size_bytes = len(schema_text(definition))
    if size_bytes > BYTES_MAX:
        raise _Trouble(f"the schema has {size_bytes} bytes; at most {BYTES_MAX} are taken")
    if isinstance(definition, dict):
        _check_depth(definition)
        _States(_Parts(definition)).check()


def _check_depth(definition: Mapping[str, Any]) -> None:
    level: list[Any] = [definition]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _Trouble(f"the schema is nested deeper than {DEPTH_MAX} levels")


class _Parts:
    """The subschemas of a schema by path, and which of them are asked of the same value as another."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.definition = definition
        self.schemas: dict[Path, Any] = {}
        self._anchors: dict[str, Path] = {}
        self._asked: dict[Path, Counter[Path]] = {}
        self._references = 0
        self._walk("#", definition)
        # Only now are all anchors known.
        self._same: dict[Path, list[Path]] = {}
        for path in list(self.schemas):
            self._link(path)

    def asked(self, path: Path) -> Counter[Path]:
        """Give all that is asked of a value where this one is, itself included, and how often each."""
        if path not in self._asked:
            self._ask(path, ())
        return self._asked[path]

    def cost_ns(self, path: Path) -> int:
        """Give what asking this one costs with all that it asks of the same value."""
        return sum(times * self._own_ns[part] for part, times in self.asked(path).items())

    @cached_property
    def _own_ns(self) -> dict[Path, int]:
        return {path: cost_ns(schema) for path, schema in self.schemas.items()}

    def _walk(self, path: Path, schema: Any) -> None:  # noqa: ANN401 - any JSON value
        pending = [(path, schema)]
        while pending:
            at, found = pending.pop()
            if at in self.schemas or not isinstance(found, dict | bool):
                continue
            self.schemas[at] = found
            if len(self.schemas) > SUBSCHEMAS_MAX:
                raise _Trouble(f"the schema has more than {SUBSCHEMAS_MAX} subschemas")
            if isinstance(found, dict):
                self._look_at(at, found)
                pending += _subschemas(at, found)

    def _look_at(self, path: Path, schema: Mapping[str, Any]) -> None:
        if path != "#" and "$id" in schema:
            raise _Trouble(f"at {path}: $id is taken at the top only; refer by #/$defs/NAME or $anchor")
        if "$schema" in schema and path != "#":
            raise _Trouble(f"at {path}: $schema is taken at the top only")
        for word in ("$anchor", "$dynamicAnchor"):
            if isinstance(schema.get(word), str):
                self._anchors[schema[word]] = path
        for pattern in (schema.get("pattern"), *schema.get("patternProperties", ())):
            if isinstance(pattern, str) and (trouble := pattern_trouble(pattern)):
                raise _Trouble(f"at {path}: {trouble}")

    def _link(self, path: Path) -> None:
        pending = [path]
        while pending:
            at = pending.pop()
            schema = self.schemas[at]
            if at in self._same or not isinstance(schema, dict):
                continue
            known = len(self.schemas)
            self._same[at] = [
                *(
                    self._target(at, schema[word]) if word.startswith("$") else f"{at}/{word}"
                    for word in _SAME_VALUE_ONE
                    if word in schema
                ),
                *(f"{at}/{word}/{i}" for word in _SAME_VALUE_LIST for i in range(len(schema.get(word, ())))),
                *(
                    f"{at}/{word}/{_escaped(name)}"
                    for word in _SAME_VALUE_MAP
                    for name, part in schema.get(word, {}).items()
                    if isinstance(part, dict | bool)
                ),
            ]
            # A reference may point where no schema was expected.
            pending += list(self.schemas)[known:]

    def _target(self, path: Path, reference: str) -> Path:
        self._references += 1
        if self._references > REFERENCES_MAX:
            raise _Trouble(f"the schema has more than {REFERENCES_MAX} references")
        whole, _, fragment = reference.partition("#")
        if whole and whole != str(self.definition.get("$id", "")).removesuffix("#"):
            raise _Trouble(
                f"at {path}: {reference!r} is somewhere else; nothing is fetched, write it below $defs"
            )
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            if fragment not in self._anchors:
                raise _Trouble(f"at {path}: there is no $anchor {fragment!r}")
            return self._anchors[fragment]
        target = "#" + fragment
        if target not in self.schemas:
            self._walk(target, self._found(path, reference, fragment))
        return target

    def _found(self, path: Path, reference: str, fragment: str) -> Any:  # noqa: ANN401 - any JSON value
        value: Any = self.definition
        for step in fragment.split("/")[1:]:
            key = step.replace("~1", "/").replace("~0", "~")
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (KeyError, IndexError, ValueError, TypeError):
                value = None
            if isinstance(value, dict) and "$id" in value and value is not self.definition:
                raise _Trouble(f"at {path}: {reference!r} leads through another $id")
        if not isinstance(value, dict | bool):
            raise _Trouble(f"at {path}: {reference!r} leads to no schema")
        return value

    def _ask(self, path: Path, above: tuple[Path, ...]) -> Counter[Path]:
        if path in above:
            raise _Trouble(f"at {path}: the schema refers to itself for the same value, without end")
        if len(above) > STEPS_MAX:
            raise _Trouble(
                f"at {path}: more than {STEPS_MAX} steps of $ref, allOf and the like for the same value"
            )
        if path not in self._asked:
            found: Counter[Path] = Counter({path: 1})
            schema = self.schemas[path]
            # What was evaluated is found out by asking all of them once more.
            twice = isinstance(schema, dict) and bool(schema.keys() & _UNEVALUATED)
            for part in self._same.get(path, ()):
                for name, times in self._ask(part, (*above, path)).items():
                    found[name] += times * (2 if twice else 1)
            if found.total() * min(self._own_ns.values()) > NANOSECONDS_MAX:
                raise _too_dear(path, found)
            self._asked[path] = found
        return self._asked[path]


_UNEVALUATED = {"unevaluatedProperties", "unevaluatedItems"}


def _subschemas(path: Path, schema: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    for word in _MAPS:
        if isinstance(schema.get(word), dict):
            yield from ((f"{path}/{word}/{_escaped(name)}", part) for name, part in schema[word].items())
    for word in _LISTS:
        if isinstance(schema.get(word), list):
            yield from ((f"{path}/{word}/{i}", part) for i, part in enumerate(schema[word]))
    yield from ((f"{path}/{word}", schema[word]) for word in _ONES if word in schema)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


class _States:
    """Follows every way down into a payload, and adds up what the dearest payload costs."""

    def __init__(self, parts: _Parts) -> None:
        self._parts = parts
        self._steps = 0
        self._below: dict[State, Counter[State]] = {}

    def check(self) -> None:
        values: Counter[State] = Counter()
        level: Counter[State] = Counter({frozenset({("#", 1)}): 1})
        for _ in range(DEPTH_MAX):
            for state, times in level.items():
                values[state] = min(VALUES_MAX, values[state] + times)
            self._check_states(values)
            deeper: Counter[State] = Counter()
            for state, times in level.items():
                for below, each in self._inside(state).items():
                    deeper[below] = min(VALUES_MAX, deeper[below] + times * each)
            level = deeper
            if all(values[state] >= VALUES_MAX for state in level):
                return

    def _check_states(self, values: Counter[State]) -> None:
        if len(values) > _STATES_MAX:
            raise _Trouble("the schema's references are too entangled to say what it costs")
        prices = sorted(((self._cost_ns(state), state) for state in values), key=lambda one: -one[0])
        left, total = VALUES_MAX, 0
        for price, state in prices:
            total += price * min(left, values[state])
            left -= min(left, values[state])
            if total > NANOSECONDS_MAX:
                raise _too_dear(max(state, key=lambda one: (one[1], one[0]))[0], Counter(dict(state)))

    def _cost_ns(self, state: State) -> int:
        return sum(times * self._parts.cost_ns(path) for path, times in state)

    def _inside(self, state: State) -> Counter[State]:
        """Give the states of a value's children, and how many children there can be of each."""
        if state not in self._below:
            asked: Counter[Path] = Counter()
            for path, times in state:
                for part, each in self._parts.asked(path).items():
                    asked[part] += times * each
            objects = [
                (path, times, schema)
                for path, times in asked.items()
                if isinstance(schema := self._parts.schemas[path], dict)
            ]
            found: Counter[State] = Counter()
            for below, times in self._children(objects):
                if below:
                    found[frozenset(below.items())] += times
            self._below[state] = found
        return self._below[state]

    def _children(
        self, objects: list[tuple[Path, int, dict[str, Any]]]
    ) -> Iterator[tuple[Counter[Path], int]]:
        names = {name for _, _, schema in objects for name in schema.get("properties", ())}
        for name in [*sorted(names), None]:
            yield (
                self._together(objects, lambda path, schema, name=name: _of_member(path, schema, name)),
                (VALUES_MAX if name is None else 1),
            )
        length = max((len(schema.get("prefixItems", ())) for _, _, schema in objects), default=0)
        for index in range(length + 1):
            yield (
                self._together(objects, lambda path, schema, index=index: _of_element(path, schema, index)),
                (VALUES_MAX if index == length else 1),
            )
        yield self._together(objects, _of_name), VALUES_MAX

    def _together(self, objects: list[tuple[Path, int, dict[str, Any]]], of: Any) -> Counter[Path]:  # noqa: ANN401
        found: Counter[Path] = Counter()
        self._steps += len(objects)
        if self._steps > _STEPS_MAX:
            raise _Trouble("the schema's references are too entangled to say what it costs")
        for path, times, schema in objects:
            for part, each in of(path, schema).items():
                found[part] += times * each
        return found


def _of_member(path: Path, schema: Mapping[str, Any], name: str | None) -> Counter[Path]:
    """Give what is asked of a member of this name; None: of one that no `properties` names."""
    found: Counter[Path] = Counter()
    named = name is not None and name in schema.get("properties", ())
    if named:
        found[f"{path}/properties/{_escaped(name or '')}"] += 1
    # Any pattern may match any name; but where one does, the rule for the others does not hold.
    found += Counter(
        f"{path}/patternProperties/{_escaped(each)}" for each in schema.get("patternProperties", ())
    )
    if not named:
        others = Counter(
            f"{path}/{word}" for word in ("additionalProperties", "unevaluatedProperties") if word in schema
        )
        found |= others
    return found


def _of_element(path: Path, schema: Mapping[str, Any], index: int) -> Counter[Path]:
    found: Counter[Path] = Counter()
    if index < len(schema.get("prefixItems", ())):
        found[f"{path}/prefixItems/{index}"] += 1
    elif "items" in schema:
        found[f"{path}/items"] += 1
    elif "unevaluatedItems" in schema:
        found[f"{path}/unevaluatedItems"] += 1
    if "contains" in schema:
        found[f"{path}/contains"] += 1
    return found


def _of_name(path: Path, schema: Mapping[str, Any]) -> Counter[Path]:
    return Counter([f"{path}/propertyNames"] if "propertyNames" in schema else [])


def _too_dear(path: Path, asked: Counter[Path]) -> _Trouble:
    name, times = max(asked.items(), key=lambda one: (one[1], one[0]))
    what = f"; it leads to {name} {times} times for the same value" if times > 1 else ""
    return _Trouble(
        f"at {path}: a payload could take longer than {NANOSECONDS_MAX / 1e9:.0f} s to validate{what}; "
        "ask less of each item, or refer to a schema once for each value"
    )
