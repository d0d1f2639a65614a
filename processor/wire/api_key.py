"""Defines API keys, and their verification without storing them.

    ep_<key id>_<secret>        the key id names a row of api_key, which has a digest of the secret

    api_key.digest_rounds       1: SHA-256, of keys from before there were rights
                                2: SHA-256 of that, so that a gateway without rights rejects such keys

SHA-256 is enough: a secret of 256 random bits can't be guessed at any speed.
"""

import re
import secrets
from dataclasses import dataclass
from hashlib import sha256

_KEY = re.compile(r"ep_([0-9a-f]{16})_([A-Za-z0-9_-]{43})", re.ASCII)

EXPECTED = "ep_<key id>_<secret>, as `processor key add` printed it"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A parsed key: its id, and its digests after one round and two; not its secret."""

    key_id: str
    digests: tuple[bytes, bytes]


def new_key() -> tuple[str, ApiKey]:
    """Create a key: its text, to be shown once, and what is stored."""
    text = f"ep_{secrets.token_hex(8)}_{secrets.token_urlsafe(32)}"
    key = read_key(text)
    assert key is not None  # noqa: S101 - it was written to be read
    return text, key


def read_key(text: str) -> ApiKey | None:
    """Parse a key; None: invalid."""
    found = _KEY.fullmatch(text)
    if found is None:
        return None
    once = sha256(found[2].encode()).digest()
    return ApiKey(found[1], (once, sha256(once).digest()))
