"""Names that nobody can take for another one, or overlook: what a queue may register a tenant by."""

import re

_NOT_SEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Letters and marks that no font shows, and that are no format characters."""

EXPECTED = "expected a letter or a digit, no blank at an end, nothing that can't be seen, and no - in front"


def is_plain(name: str) -> bool:
    """Say whether a name shows all that it is, and reads as no option of a command."""
    return (
        # Blanks other than the plain one, and whatever formats or controls, are not printable.
        name.isprintable()
        and name == name.strip()
        and not name.startswith("-")
        and any(character.isalnum() for character in name)
        and not _NOT_SEEN.search(name)
    )
