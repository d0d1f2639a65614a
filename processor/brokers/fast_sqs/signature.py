"""Sign requests by AWS's Signature Version 4, for one kind of request: POST / with a JSON body.

The rules are AWS's (Signature Version 4 signing process); a property test compares with botocore's signer.
This signer is cheap because the headers are fixed and the signing key is kept for a day.
"""

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Protocol

_ALGORITHM = "AWS4-HMAC-SHA256"
CONTENT_TYPE = "application/x-amz-json-1.0"


class Credentials(Protocol):
    """An access key (botocore's ReadOnlyCredentials)."""

    @property
    def access_key(self) -> str: ...  # noqa: D102
    @property
    def secret_key(self) -> str: ...  # noqa: D102
    @property
    def token(self) -> str | None: ...  # noqa: D102


class Signer:
    """Signs requests to one host, in one region, for one service. Thread-safe.

    `credentials` is called before each request, so that renewed ones are used. `clock` returns seconds since
    1970.
    """

    def __init__(
        self,
        credentials: Callable[[], Credentials],
        *,
        host: str,
        region: str,
        service: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._host = host
        self._region = region
        self._service = service
        self._clock = clock
        self._key: tuple[tuple[str, str], bytes] = (("", ""), b"")
        self._stamped: tuple[int, str] = (-1, "")

    def headers(self, target: str, body: bytes) -> list[tuple[str, str]]:
        """Return the headers of a request for the operation `target`, signed, without content-length."""
        key = self._credentials()
        stamp = self._stamp()
        headers = [("content-type", CONTENT_TYPE), ("host", self._host), ("x-amz-date", stamp)]
        if key.token:
            headers.append(("x-amz-security-token", key.token))
        headers.append(("x-amz-target", target))
        names = ";".join(name for name, _ in headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers)
        request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
        scope = f"{stamp[:8]}/{self._region}/{self._service}/aws4_request"
        digest = hashlib.sha256(request.encode()).hexdigest()
        text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{digest}"
        signature = _hmac(self._signing_key(key.secret_key, stamp[:8]), text).hex()
        who = f"Credential={key.access_key}/{scope}"
        headers.append(("authorization", f"{_ALGORITHM} {who}, SignedHeaders={names}, Signature={signature}"))
        return headers

    def _stamp(self) -> str:
        second = int(self._clock())
        known_for, stamp = self._stamped
        if known_for != second:
            stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._stamped = (second, stamp)
        return stamp

    def _signing_key(self, secret: str, day: str) -> bytes:
        known_for, key = self._key
        if known_for != (secret, day):
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, self._service, "aws4_request"):
                key = _hmac(key, part)
            # One assignment, so that another thread sees either the old pair or the new one.
            self._key = ((secret, day), key)
        return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
