"""List the settings in force with their sources, without secrets."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import AliasChoices, SecretStr

from processor.settings import Settings
from processor.settings.foreign import env_file_names
from processor.settings.loading import template_names

HIDDEN = "***"
_HARMLESS = frozenset({"queue", "group", "sasl", "sslmode", "sslrootcert", "connect_timeout", "host", "port"})
"""Options of a URL that are shown. Any other option may be a password or token."""

_OF_QUEUE_URL = {"aws_region": "region_name", "aws_endpoint_url": "endpoint_url"}
"""Settings that default to a part of the queue's URL, and their names in boto3."""


def in_force(settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield each setting with its value (secrets hidden) and source, in the order of the template."""
    in_file = env_file_names()
    of_queue_url = settings.aws_client_options()
    environment = {name.upper() for name, value in os.environ.items() if value}
    for name in map(str.lower, template_names()):
        if (field := Settings.model_fields.get(name)) is None:  # one of the tests
            continue
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [name]
        known = [str(choice).upper() for choice in choices]
        source = next((f"environment ({it})" for it in known if it in environment), None)
        source = source or next((f".env ({it})" for it in known if it in in_file), "default")
        value = getattr(settings, name)
        if value is None and name in _OF_QUEUE_URL and _OF_QUEUE_URL[name] in of_queue_url:
            value, source = of_queue_url[_OF_QUEUE_URL[name]], "SQS_QUEUE_URL"
        setting = name.upper()
        yield {"setting": setting, "value": _value(value), "source": source.replace(f" ({setting})", "")}


def _value(value: Any) -> Any:  # noqa: ANN401 - of any setting
    if isinstance(value, SecretStr):
        text = value.get_secret_value()
        # The path of a sink's URL may be a secret too.
        shown = without_secrets(text) if "://" in text else HIDDEN
        return re.sub(r"^(https?://[^/?#]*/).+", rf"\1{HIDDEN}", shown)
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {name: _value(one) for name, one in value.items()}
    return value


def without_secrets(text: str) -> str:
    """Hide the password of a URL, with any characters, and the values of options that may be secret."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    before, at, behind = rest.rpartition("@")
    user = re.split("[:/?#]", before)[0]
    hidden = "" if user == before else f":{HIDDEN}"
    where, question, options = behind.partition("?")
    shown = [option for option in options.split("&") if option.partition("=")[0] in _HARMLESS]
    if question and len(shown) < options.count("&") + 1:
        shown.append(HIDDEN)
    return f"{scheme}://{user}{hidden}{at}{where}{question}{'&'.join(shown)}"
