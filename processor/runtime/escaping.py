"""Escape characters that a terminal or line reader would interpret or hide. No other module does so.

These are all characters that Python calls not printable (C0, DEL and C1 controls, line separators, bidi and
other format characters, odd spaces, surrogates, private use, unassigned), and invisible printable ones.
"""

import io
import json
import re
from collections.abc import Iterator

_LIKE_AN_ESCAPE = re.compile(
    r"(\\+)(x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4}|[^\\])", re.DOTALL
)
_TO_LOOK_AT = re.compile(r"[^\n\x20-\x7e]")
_OF_A_SCREEN = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z])")

_UNSEEN = re.compile(
    # Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt, but for the unprintable.
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
    # Drawn as nothing: a braille cell without dots, a filler of Khitan, a note without a head.
    "\u2800\U00016fe4\U0001d159]"
)


def is_plain(text: str) -> bool:
    """Return whether all characters of a text are printable and visible."""
    return text.isprintable() and (text.isascii() or _UNSEEN.search(text) is None)


def escaped(text: str, keep: str = "") -> str:
    r"""Escape characters as \xHH, \uHHHH or \UHHHHHHHH, except those in `keep`.

    A `\` of the text itself is doubled only if it would read as one of these.
    """
    if is_plain(text) and "\\" not in text:
        return text

    def doubled(found: re.Match[str]) -> str:
        behind = found[2]
        shown = behind if len(behind) == 1 else chr(int(behind[1:], 16))
        plain = is_plain(shown) or (len(behind) == 1 and shown in keep)
        return found[0] if plain else found[1] * 2 + behind

    return "".join(
        each if is_plain(each) or each in keep else _written(each)
        for each in _LIKE_AN_ESCAPE.sub(doubled, text)
    )


def printable(text: str) -> str:
    """Escape a text, except line ends and tabs."""
    return escaped(text, "\n\t")


def json_escaped(document: str) -> str:
    """Escape characters in the strings of a JSON document by JSON's escapes, which keep its value."""
    return _TO_LOOK_AT.sub(
        lambda found: found[0] if is_plain(found[0]) else json.dumps(found[0])[1:-1], document
    )


def json_bytes_escaped(document: bytes) -> bytes:
    """Escape like `json_escaped`, for bytes that rarely need it."""
    if document.isascii() and b"\x7f" not in document:
        return document
    return json_escaped(document.decode()).encode()


class Output(io.TextIOWrapper):
    """A standard stream that escapes everything written to it, by libraries and crashes too.

    On a terminal the escape sequences of progress bars and colours pass. There `printable` has to escape
    quoted text beforehand.
    """

    def write(self, text: str) -> int:
        """Write a text, escaped."""
        if not is_plain(text):
            super().write("".join(_guarded(text, screen=self.isatty())))
        else:
            super().write(text)
        return len(text)


def _guarded(text: str, *, screen: bool) -> Iterator[str]:
    keep = "\n\t\r" if screen else "\n\t"
    for place, part in enumerate(_OF_A_SCREEN.split(text) if screen else (text,)):
        if place % 2:
            yield part
        else:
            yield from (each if is_plain(each) or each in keep else _written(each) for each in part)


def _written(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004
