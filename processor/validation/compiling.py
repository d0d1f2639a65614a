"""Compiles the JSON Schemas that people publish, or says why one can't be used."""

from typing import Any

import jsonschema_rs

from processor.errors import SettingsError
from processor.json_pointer import pointer
from processor.validation.dialects import dialect_of
from processor.validation.schema_text import DEPTH_MAX, schema_text

BYTES_MAX = 4 * 1024 * 1024
_REGEX_BYTES_MAX = 2 * 1024 * 1024


def compile_schema(definition: Any, *, formats: str = "assert") -> jsonschema_rs.Validator:  # noqa: ANN401 - any JSON value
    """Compile a JSON Schema by the draft that its `$schema` names; `formats` is "assert" or "annotate".

    Raises SettingsError where it is no valid schema of its draft, has a `$ref` to somewhere else (nothing is
    ever fetched), a pattern that a linear-time engine can't run (look-around, back-references), or where it
    is too long or too deep.
    """
    if not isinstance(definition, dict | bool):
        # The library would read a text as a schema in JSON.
        raise SettingsError("not a usable JSON Schema: expected an object, true or false")
    dialect = dialect_of(definition)
    try:
        _check_size(definition)
        if isinstance(definition, dict):
            definition = definition | {"$schema": dialect.uri}
        return dialect.validator(
            definition,
            validate_formats=formats == "assert",
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES_MAX),
        )
    except jsonschema_rs.ValidationError as error:
        where = pointer(error.instance_path) or "(root)"
        raise SettingsError(f"not a usable JSON Schema {dialect.name}: at {where}: {error.message}") from None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - as below
        # The library's panics are no Exception.
        raise SettingsError(f"not a usable JSON Schema {dialect.name}: {error}") from None


def _check_size(definition: dict[str, Any] | bool) -> None:
    level: list[Any] = [definition]
    for _ in range(DEPTH_MAX + 1):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
        ]
    if level:
        raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
    if (size_bytes := len(schema_text(definition).encode())) > BYTES_MAX:
        raise ValueError(f"{size_bytes} bytes; at most {BYTES_MAX} are taken")
