"""Adds the values in a routing key to the event, in the form of its format.

    ROUTING_KEY <user_id>.event.<event_type>, ROUTING_KEY_TENANT acme
    key u1.event.created, body {"id": "1"}
      ─▶ {"id": "1", "tenant_id": "acme", "event_type": "created", "payload": {"user_id": "u1"}}

An envelope (native, CloudEvents) keeps its form: the key fills missing fields, and must agree with the
others. The result is composed of the original texts, so that no number loses a digit.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from processor.errors import Reason, SettingsError
from processor.settings import ValidationSettings
from processor.wire.cloudevents import is_binary
from processor.wire.formats import Attribute, Claimed, Malformed
from processor.wire.strict_json import Document, JsonFault, read

_TENANT, _TYPE, _PRODUCER = _OWN = ("tenant_id", "event_type", "producer")
"""Names in a template that are fields of the event; other names are members of its payload."""

_NAME = re.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")
_WORDS_MAX = 128

_NATIVE = {name: name for name in _OWN}
_CLOUDEVENT = {_TENANT: "tenantid", _TYPE: "type", _PRODUCER: "source"}

_EXPECTED = (
    "expected words separated by dots; each <name> in angle brackets matches one word, such as "
    "<user_id>.event.<event_type>"
)


class _Contradiction(ValueError):
    """The key and the message have different values."""


@dataclass(frozen=True, slots=True)
class RoutingKeys:
    """A template of routing keys, and the tenant if the template does not have it."""

    template: str
    tenant_id: str | None
    depth_max: int
    values_max: int
    size_bytes_max: int

    @classmethod
    def of(cls, settings: ValidationSettings) -> Self | None:
        """Read the settings; None: routing keys are unused. Raises SettingsError for an invalid template."""
        if settings.routing_key is None:
            if settings.routing_key_tenant is not None:
                raise SettingsError("ROUTING_KEY_TENANT is set without ROUTING_KEY; set both, or neither")
            return None
        names = _names(settings.routing_key)
        if _TYPE not in names:
            raise SettingsError(
                "ROUTING_KEY: <event_type> is missing; expected it as one word of the template"
            )
        if (_TENANT in names) == (settings.routing_key_tenant is not None):
            raise SettingsError(
                "ROUTING_KEY: expected either <tenant_id> in the template or ROUTING_KEY_TENANT, not both"
            )
        return cls(
            settings.routing_key,
            settings.routing_key_tenant,
            settings.json_depth_max,
            settings.json_values_max,
            settings.body_bytes_max,
        )

    def apply(
        self, key: Attribute, body: bytes, attributes: Mapping[str, Attribute]
    ) -> tuple[bytes, Mapping[str, Attribute]] | Malformed:
        """Return the body and the attributes of a message, completed by its routing key.

        A body that is not a JSON object stays as it is, with attributes for tenant and type. Malformed: the
        key does not match the template, or disagrees with the message.
        """
        said = self._read(key) if isinstance(key, str) else None
        if said is None:
            return _malformed(f"the routing key does not match ROUTING_KEY ({self.template})", {})
        own = {name: value for name, value in said.items() if name in _OWN}
        try:
            for name, value in own.items():
                _check_equal(name, value, attributes.get(name, value), "the header")
            document = self._document(body)
            if document is None:
                return body, {**attributes, **own}
            if is_binary(attributes):
                attributes = {**attributes, **own}
                text = _filled(document.text, document.value, said, "the data")
            else:
                text = _with(document, said)
        except _Contradiction as fault:
            return _malformed(str(fault), own)
        return text.encode("utf-8", "surrogatepass"), attributes

    def _read(self, key: str) -> dict[str, str] | None:
        """Match a key against the template; None: no match."""
        words, said = key.split("."), {}
        parts = self.template.split(".")
        if len(words) != len(parts):
            return None
        for part, word in zip(parts, words, strict=True):
            if matched := _NAME.fullmatch(part):
                if not word:
                    return None
                said[matched[1]] = word
            elif part != word:
                return None
        return said if self.tenant_id is None else {**said, _TENANT: self.tenant_id}

    def _document(self, body: bytes) -> Document | None:
        # A fault here is found again, with its message, when the delivery is validated.
        if len(body) > self.size_bytes_max:
            return None
        try:
            document = read(body.decode(), self.depth_max, self.values_max)
        except (UnicodeDecodeError, JsonFault):
            return None
        return document if isinstance(document.value, dict) else None


def _malformed(words: str, said: Mapping[str, str]) -> Malformed:
    claimed = Claimed(said.get(_TENANT), said.get(_TYPE), producer=said.get(_PRODUCER))
    return Malformed(Reason.ENVELOPE_INVALID, {"message": words}, claimed)


def _with(document: Document, said: Mapping[str, str]) -> str:
    """Serialize the envelope with the values of the key. Raises _Contradiction."""
    texts = dict(document.member_texts)
    if document.value.get("specversion") is not None:
        return _enveloped(document, texts, said, _CLOUDEVENT, "data")
    if {_TYPE, "payload"} <= texts.keys():
        return _enveloped(document, texts, said, _NATIVE, "payload")
    envelope: dict[str, str] = {}
    for name in _OWN:
        if name in said:
            _check_equal(name, said[name], _named(document.value, name, said[name]), "the body")
            envelope[name] = json.dumps(said[name])
            texts.pop(name, None)
    if "id" in texts:
        envelope["id"] = texts.pop("id")
    envelope["payload"] = _payload(document.value, texts, said)
    return _object(envelope)


def _enveloped(
    document: Document, texts: dict[str, str], said: Mapping[str, str], names: Mapping[str, str], payload: str
) -> str:
    """Add missing fields to an envelope, in the names of its format."""
    for own, name in names.items():
        if own in said:
            _check_equal(name, said[own], _named(document.value, name, said[own]), "the body")
            if document.value.get(name) is None:
                texts[name] = json.dumps(said[own])
    value = document.value.get(payload)
    if isinstance(value, dict):
        texts[payload] = _filled(texts[payload], value, said, payload)
    return _object(texts)


def _filled(text: str, value: Mapping[str, Any], said: Mapping[str, str], what: str) -> str:
    """Add the values of the key to the text of a payload."""
    others = said.keys() - set(_OWN)
    for name in others:
        _check_equal(f"{what}.{name}", said[name], value.get(name, said[name]), "the body")
    return _joined(text, {name: json.dumps(said[name]) for name in others if name not in value})


def _named(fields: Mapping[str, Any], name: str, otherwise: str) -> object:
    # A null field counts as missing.
    return otherwise if fields.get(name) is None else fields[name]


def _payload(value: Mapping[str, Any], texts: dict[str, str], said: Mapping[str, str]) -> str:
    members = {}
    for name, word in said.items():
        if name not in _OWN:
            _check_equal(name, word, value.get(name, word), "the body")
            members[name] = json.dumps(word)
    # If both have the value, the body's own spelling stays.
    return _object(members | texts)


def _check_equal(name: str, word: str, other: object, where: str) -> None:
    same = other == word if isinstance(other, str) else isinstance(other, int) and str(other) == word
    if not same or isinstance(other, bool):
        raise _Contradiction(
            f"{name}: {where} differs from the routing key or ROUTING_KEY_TENANT; send only one"
        )


def _joined(text: str, members: Mapping[str, str]) -> str:
    """Add members to the text of an object."""
    if not members:
        return text
    added = ", ".join(f"{json.dumps(name)}: {member}" for name, member in members.items())
    inside = text.strip()[1:-1].strip()
    return "{" + (f"{inside}, {added}" if inside else added) + "}"


def _object(members: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {text}" for name, text in members.items()) + "}"


def _names(template: str) -> set[str]:
    parts = template.split(".")
    found = []
    for part in parts:
        matched = _NAME.fullmatch(part)
        if matched is not None:
            found.append(matched[1])
        elif not part or not part.isprintable() or set("<>*# ") & set(part):
            raise SettingsError(f"ROUTING_KEY: {part[:64]!r} is not a valid word of a template; {_EXPECTED}")
    if len(set(found)) < len(found) or len(parts) > _WORDS_MAX:
        raise SettingsError(f"ROUTING_KEY: a name is repeated, or there are too many words; {_EXPECTED}")
    if {"id", "payload"} & set(found):
        raise SettingsError("ROUTING_KEY: <id> and <payload> come from the body; use other names")
    return set(found)
