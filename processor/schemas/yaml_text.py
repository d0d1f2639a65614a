"""Parses YAML strictly: only what JSON can express, with every digit.

    text ─▶ libyaml's events ─▶ the value that the same text in JSON would have

Plain scalars follow the core schema of YAML 1.2, not 1.1: `no`, `on`, 2024-01-01, 1:30 and 1_000 are strings.
007 is a string too, because YAML parsers disagree about it.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from processor.wire import strict_json

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG = "tag:yaml.org,2002:"
_CONSTANTS = {
    "null": None,
    "Null": None,
    "NULL": None,
    "~": None,
    "": None,
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(r"([-+]?)(0|[1-9][0-9]*|(?=\.[0-9]))(?:\.([0-9]*))?([eE][-+]?[0-9]+)?")
_BASES = re.compile(r"0o([0-7]+)|0x([0-9a-fA-F]+)")
_BASED_MAX = 256
_NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_MERGE = "<<"


class YamlFault(ValueError):
    """The text is rejected; the message has the fault and its place."""


def yaml_value(text: str, depth_max: int, values_max: int) -> Any:  # noqa: ANN401 - any JSON value
    """Parse one YAML document; numbers are those of `strict_json.read`, and keys are strings.

    Raises YamlFault. The value of an alias counts as if it were written out.
    """
    try:
        return _Reader(text, depth_max, values_max).document()
    except yaml.MarkedYAMLError as error:
        raise YamlFault(f"{error.problem}{_at(error.problem_mark)}") from None
    except yaml.YAMLError as error:
        raise YamlFault(str(error).partition("\n")[0]) from None


class _Reader:
    def __init__(self, text: str, depth_max: int, values_max: int) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, Any] = {}
        self._depth_max = depth_max
        self._values_max = values_max
        self._values = 0

    def document(self) -> Any:  # noqa: ANN401 - any JSON value
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise YamlFault("expected a document, found only comments")
        value = self._value(next(self._events), 0)
        next(self._events)
        if not isinstance(more := next(self._events), yaml.StreamEndEvent):
            raise YamlFault(f"a second document begins{_at(more.start_mark)}; expected one")
        return value

    def _value(self, event: Any, depth: int) -> Any:  # noqa: ANN401 - any JSON value
        self._count(event, depth)
        match event:
            case yaml.AliasEvent():
                return self._again(event, self._anchored(event), depth)
            case yaml.ScalarEvent():
                value = _scalar(event)
            case yaml.SequenceStartEvent():
                _check_tag(event, "seq")
                value = []
                while not isinstance(inside := next(self._events), yaml.SequenceEndEvent):
                    value.append(self._value(inside, depth + 1))
            case _:
                _check_tag(event, "map")
                value = self._mapping(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = value
        return value

    def _mapping(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        merged: list[Any] = []
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            name = self._name(event)
            value = self._value(next(self._events), depth + 1)
            if name in members or (name == _MERGE and merged):
                raise YamlFault(f"duplicate key {name[:64]!r}{_at(event.start_mark)}")
            if name == _MERGE and event.implicit[0]:
                merged = value if isinstance(value, list) else [value]
                if not merged or not all(isinstance(one, dict) for one in merged):
                    raise YamlFault(f"<< expects a mapping or a list of mappings{_at(event.start_mark)}")
            else:
                members[name] = value
        for one in merged:
            members |= {name: member for name, member in one.items() if name not in members}
        return members

    def _name(self, event: Any) -> str:  # noqa: ANN401 - an event
        if isinstance(event, yaml.ScalarEvent):
            # The key as written: the response code 200 of OpenAPI is a name.
            if event.anchor is not None:
                self._anchors[event.anchor] = event.value
            return str(event.value)
        if isinstance(event, yaml.AliasEvent) and isinstance(name := self._anchored(event), str):
            return name
        raise YamlFault(f"a key is not a string{_at(event.start_mark)}")

    def _anchored(self, event: Any) -> Any:  # noqa: ANN401 - any JSON value
        if event.anchor not in self._anchors:
            raise YamlFault(f"undefined alias *{event.anchor}{_at(event.start_mark)}")
        return self._anchors[event.anchor]

    def _again(self, event: Any, value: Any, depth: int) -> Any:  # noqa: ANN401 - any JSON value
        """Copy the value of an alias, and count it again."""
        if isinstance(value, dict):
            return {name: self._copied(event, member, depth + 1) for name, member in value.items()}
        if isinstance(value, list):
            return [self._copied(event, element, depth + 1) for element in value]
        return value

    def _copied(self, event: Any, value: Any, depth: int) -> Any:  # noqa: ANN401 - any JSON value
        self._count(event, depth)
        return self._again(event, value, depth)

    def _count(self, event: Any, depth: int) -> None:  # noqa: ANN401 - an event
        self._values += 1
        if self._values > self._values_max:
            raise YamlFault(f"more than {self._values_max} values{_at(event.start_mark)}")
        if depth > self._depth_max:
            raise YamlFault(f"nested deeper than {self._depth_max} levels{_at(event.start_mark)}")


def _scalar(event: Any) -> Any:  # noqa: ANN401 - any JSON value
    text, tag = event.value, (event.tag or "").removeprefix(_TAG)
    if tag in ("str", "!") or (not tag and not event.implicit[0]):
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if found := _BASES.fullmatch(text):
        if len(text) > _BASED_MAX:
            raise YamlFault(f"a number of {len(text)} characters{_at(event.start_mark)}")
        return _number(event, str(int(found[1], 8) if found[1] else int(found[2], 16)))
    if found := _NUMBER.fullmatch(text):
        sign, whole, part, exponent = found.groups()
        return _number(
            event, sign.replace("+", "") + (whole or "0") + (f".{part}" if part else "") + (exponent or "")
        )
    if _NO_NUMBER.fullmatch(text):
        raise YamlFault(f"{text[:40]} is not a JSON number{_at(event.start_mark)}")
    _check_tag(event, "str")
    return text


def _number(event: Any, digits: str) -> Any:  # noqa: ANN401 - a number
    try:
        return strict_json.read(digits, 1).value
    except strict_json.JsonFault as fault:
        raise YamlFault(f"{fault}{_at(event.start_mark)}") from None


def _check_tag(event: Any, kind: str) -> None:  # noqa: ANN401 - an event
    if event.tag not in (None, "!", _TAG + kind):
        raise YamlFault(f"unsupported tag {event.tag[:80]!r}{_at(event.start_mark)}")


def _at(mark: Any) -> str:  # noqa: ANN401 - a place in the text
    return f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
