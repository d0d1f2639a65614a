"""Names that nobody can take for another one, or overlook: what a queue may register a tenant by."""

from processor.runtime import escaping

EXPECTED = "expected a letter or a digit, no blank at an end, nothing that can't be seen, and no - in front"


def is_plain(name: str) -> bool:
    """Say whether a name shows all that it is, and reads as no option of a command."""
    return (
        escaping.is_plain(name)
        and name == name.strip()
        and not name.startswith("-")
        and any(character.isalnum() for character in name)
    )


def quoted(name: str) -> str:
    """Show a name in quotes, letters beyond ASCII by number; what can't be seen is left to be escaped."""
    shown = (
        each if each.isascii() or not escaping.is_plain(each) else ascii(each).strip("'") for each in name
    )
    return f"'{''.join(shown)}'"
