"""Compiles the JSON Schemas that people publish, or says why one can't be used."""

from typing import Any

import jsonschema_rs

from processor.errors import SettingsError
from processor.json_pointer import pointer
from processor.validation.dialects import dialect_of

_REGEX_BYTES_MAX = 2 * 1024 * 1024


def compile_schema(definition: Any, *, formats: str = "assert") -> jsonschema_rs.Validator:  # noqa: ANN401 - any JSON value
    """Compile a JSON Schema by the draft that its `$schema` names; `formats` is "assert" or "annotate".

    Raises SettingsError where it is no valid schema of its draft, has a `$ref` to somewhere else (nothing is
    ever fetched), a pattern that a linear-time engine can't run (look-around, back-references), or where a
    validation could take too long.
    """
    if not isinstance(definition, dict | bool):
        # The library would read a text as a schema in JSON.
        raise SettingsError("not a usable JSON Schema: expected an object, true or false")
    dialect = dialect_of(definition)
    if isinstance(definition, dict):
        definition = definition | {"$schema": dialect.uri}
    try:
        # By its form first: compiling follows references too.
        jsonschema_rs.meta.validate(definition)
        return dialect.validator(
            definition,
            validate_formats=formats == "assert",
            offline=True,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES_MAX),
        )
    except jsonschema_rs.ValidationError as error:
        where = pointer(error.instance_path) or "(root)"
        raise SettingsError(f"not a usable JSON Schema {dialect.name}: at {where}: {error.message}") from None
    except (jsonschema_rs.ReferencingError, ValueError, TypeError) as error:
        raise SettingsError(f"not a usable JSON Schema {dialect.name}: {error}") from None
