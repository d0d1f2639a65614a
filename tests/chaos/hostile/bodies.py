"""Bodies that are expensive to parse or to validate."""

import json
import random

DEAR_SCHEMA = {
    "type": "object",
    "properties": {
        "texts": {"type": "array", "maxItems": 2000, "items": {"type": "string", "pattern": "^(a|b|ab)*c$"}},
        "things": {"type": "array", "maxItems": 1000, "uniqueItems": True, "items": {"type": "object"}},
    },
}
"""What may be published, and takes its time."""


def dear_payload() -> str:
    texts = ["ab" * 25] * 2000
    things = [{"n": number, "m": {"n": number}} for number in range(1000)]
    return json.dumps({"texts": texts, "things": things})


def an_event(payload: str = '{"n": 1}', event_type: str = "user.signed_up") -> str:
    """An event of the hostile tenant, under an id by chance."""
    message_id = f"m-{random.getrandbits(64):016x}"
    named = {"tenant_id": "mallory", "event_type": event_type, "id": message_id}
    return f'{json.dumps(named)[:-1]}, "payload": {payload}}}'


def extreme_numbers(size_bytes: int) -> str:
    """A payload of numbers that are dear to read: digits, exponents and fractions without end."""
    kind = random.choice(("9" * 1000, "1e999999999", "0." + "0" * 1000 + "1", "1e-400", "123456789.5e30"))
    count = min(size_bytes // (len(kind) + 1), 90_000)
    return '{"n": [' + ",".join([kind] * count) + "]}"
