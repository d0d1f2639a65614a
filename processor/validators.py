"""Compiles the JSON Schemas that people publish, or says why one can't be used."""

from typing import Any

import jsonschema_rs

from processor.errors import SettingsError
from processor.schema_budget import budget_trouble
from processor.wire import pointer

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REGEX_BYTES_MAX = 2 * 1024 * 1024


def compile_schema(definition: Any) -> jsonschema_rs.Draft202012Validator:  # noqa: ANN401 - any JSON value
    """Compile a JSON Schema (2020-12), with formats checked.

    Raises SettingsError where it is no valid schema, has a `$ref` to somewhere else (nothing is ever
    fetched), a pattern that a linear-time engine can't run (look-around, back-references), or where a
    validation could take too long.
    """
    if not isinstance(definition, dict | bool):
        # The library would read a text as a schema in JSON.
        raise SettingsError("not a usable JSON Schema 2020-12: expected an object, true or false")
    dialect = definition.get("$schema", _DIALECT) if isinstance(definition, dict) else _DIALECT
    if not isinstance(dialect, str) or dialect.rstrip("#") != _DIALECT:
        # Another draft's rules would be skipped in silence, and a dialect of its own would be fetched.
        raise SettingsError(f"not a usable JSON Schema 2020-12: $schema: expected {_DIALECT} or none")
    try:
        # By its form first, which the budget relies on, and compiled last: compiling follows references too.
        jsonschema_rs.meta.validate(definition)
        if (trouble := budget_trouble(definition)) is not None:
            raise SettingsError(f"not a usable JSON Schema 2020-12: {trouble}")
        return jsonschema_rs.Draft202012Validator(
            definition,
            validate_formats=True,
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES_MAX),
        )
    except jsonschema_rs.ValidationError as error:
        where = pointer(error.instance_path) or "(root)"
        raise SettingsError(f"not a usable JSON Schema 2020-12: at {where}: {error.message}") from None
    except (jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        raise SettingsError(f"not a usable JSON Schema 2020-12: {error}") from None
