"""`settings.md`: every setting with its type, bounds, default and meaning.

.env-template ──▶ sections, which commands read them, and the meanings
Settings      ──▶ types, bounds, defaults and other names
"""

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from processor.settings import Settings
from tests.reference import MARK
from tests.reference.readers import readers

TEMPLATE = Path(__file__).parents[2] / ".env-template"
_HEAD = """\
# Settings

A setting is an environment variable, or a line of `.env` in the current folder. The environment wins. An
empty variable counts as not set.

`processor settings --template > .env` writes a file to fill in. `processor settings` prints the values in
force, and where each comes from. `processor settings` and `processor check` read all settings.
*Read by* names the commands that refuse to work with a wrong value.
"""
_SECTION = re.compile(r"# ── (?P<heading>.*?) ─+")
_VARIABLE = re.compile(r"#(?P<name>[A-Z][A-Z0-9_]*)=(?P<value>.*)")
_TYPES: Mapping[object, str] = {
    int: "integer",
    float: "number",
    str: "text",
    SecretStr: "secret text",
    frozenset: "list",
    Mapping: "JSON object",
}
_BOUNDS = {Ge: ("ge", "at least"), Gt: ("gt", "above"), Le: ("le", "at most"), Lt: ("lt", "below")}


def settings_page() -> str:
    """Write the page."""
    mark = MARK.format(source=".env-template and processor/settings")
    return "\n".join([mark, _HEAD, *_sections(TEMPLATE.read_text(encoding="utf-8"))])


def _sections(template: str) -> Iterator[str]:
    for paragraph in template.split("\n\n"):
        *lines, last = paragraph.strip().splitlines()
        if section := _SECTION.fullmatch(paragraph.splitlines()[0]):
            yield f"## {section['heading']}\n"
        elif variable := _VARIABLE.fullmatch(last):
            yield f"### {variable['name']}\n"
            yield _facts(variable["name"]) + "\n"
            yield _meaning(lines)
            if commands := readers(variable["name"]):
                yield f"Read by {', '.join(f'`{command}`' for command in commands)}.\n"


def _meaning(lines: list[str]) -> str:
    """Give the words of a comment; indented lines stay as they are."""
    parts = []
    for indented, group in groupby((line[1:] for line in lines), lambda line: line.startswith("   ")):
        text = "\n".join(line[3:].rstrip() if indented else line[1:] for line in group)
        parts.append(f"```\n{text}\n```\n" if indented else _prose(text) + "\n")
    return "\n".join(parts)


def _prose(text: str) -> str:
    """Show names of settings as code; a name in angle brackets is no tag, and a star no emphasis."""
    escaped = re.sub(r"([<*])", r"\\\1", text)
    return re.sub(r"(?<![`\w])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?:=[\w.]+)?(?![`\w])", r"`\g<0>`", escaped)


def _facts(name: str) -> str:
    field = Settings.model_fields.get(name.lower())
    if field is None:
        return "Text. No default."
    default = f"Default: `{field.default}`." if field.default is not None else "No default."
    other = [f"`{alias}`" for alias in _names(field) if alias != name]
    read_too = f" Also read: {', '.join(other)}." if other else ""
    first, *rest = [_type(field.annotation), *_bounds(field)]
    return f"{', '.join([first[0].upper() + first[1:], *rest])}. {default}{read_too}"


def _names(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    return [str(choice).upper() for choice in alias.choices] if isinstance(alias, AliasChoices) else []


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        [one] = [argument for argument in get_args(annotation) if argument is not type(None)]
        return _type(one)
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if origin is Literal:
        return "one of " + ", ".join(f"`{value}`" for value in get_args(annotation))
    return next(word for kind, word in _TYPES.items() if kind in (annotation, origin) or _is(origin, kind))


def _is(origin: object, kind: object) -> bool:
    return isinstance(origin, type) and isinstance(kind, type) and issubclass(origin, kind)


def _bounds(field: FieldInfo) -> Iterator[str]:
    for bound in field.metadata:
        if type(bound) in _BOUNDS:
            attribute, words = _BOUNDS[type(bound)]
            yield f"{words} {getattr(bound, attribute):,}"
