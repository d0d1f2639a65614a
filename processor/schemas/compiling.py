"""Compiles JSON Schemas, or explains why a schema can't be used."""

from typing import Any

import jsonschema_rs

from processor.errors import SettingsError
from processor.schemas.dialects import DRAFT_2020, Dialect, dialect_of
from processor.schemas.form_faults import form_fault
from processor.schemas.references import SchemaDocument, missing
from processor.schemas.schema_text import DEPTH_MAX, schema_text
from processor.wire.json_pointer import pointer

BYTES_MAX = 4 * 1024 * 1024
_REGEX_BYTES_MAX = 2 * 1024 * 1024


def compile_schema(definition: Any, *, formats: str = "assert") -> jsonschema_rs.Validator:  # noqa: ANN401 - any JSON value
    """Compile a JSON Schema by the draft that its `$schema` names; `formats` is "assert" or "annotate".

    Raises SettingsError if the schema is invalid in its draft, too large or too deep, or has a `$ref` to
    another document (nothing is fetched) or a pattern that a linear-time engine can't run (look-around,
    back-references).
    """
    name, dialect = "", DRAFT_2020
    try:
        if not isinstance(definition, dict | bool):
            # The library would parse a string as a schema in JSON.
            raise SettingsError("expected an object, true or false")  # noqa: TRY301 - see below
        dialect = dialect_of(definition)
        name = f" {dialect.name}"
        return _compiled(definition, dialect, formats)
    except jsonschema_rs.ValidationError as error:
        trouble = f"at {pointer(error.instance_path) or '(root)'}: {form_fault(error, dialect)}"
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - the library's panics are no Exception
        trouble = str(error) or type(error).__name__
    raise SettingsError(f"not a usable JSON Schema{name}: {trouble}")


def _compiled(definition: dict[str, Any] | bool, dialect: Dialect, formats: str) -> jsonschema_rs.Validator:
    _check_size(definition)
    document = SchemaDocument(definition, dialect)
    if others := document.foreign():
        raise SettingsError(missing([("", other) for other in others]))
    document.flatten()
    schema = document.definition
    return dialect.validator(
        schema | {"$schema": dialect.uri} if isinstance(schema, dict) else schema,
        validate_formats=formats == "assert",
        offline=True,
        pattern_options=jsonschema_rs.RegexOptions(size_limit=_REGEX_BYTES_MAX),
    )


def _check_size(definition: dict[str, Any] | bool) -> None:
    level: list[Any] = [definition]
    for _ in range(DEPTH_MAX):
        level = [
            child
            for value in level
            if isinstance(value, dict | list)
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, dict | list)
        ]
    if level:
        raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
    if (size_bytes := len(schema_text(definition).encode())) > BYTES_MAX:
        raise ValueError(f"{size_bytes} bytes; at most {BYTES_MAX} are accepted")
