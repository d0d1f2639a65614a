"""Checks names that a queue may register tenants by: visible and unambiguous."""

from processor.runtime import escaping

EXPECTED = "expected a letter or a digit, no blank at either end, no invisible character, and no leading -"


def is_plain(name: str) -> bool:
    """Return whether a name is fully visible, and can't be parsed as an option of a command."""
    return (
        escaping.is_plain(name)
        and name == name.strip()
        and not name.startswith("-")
        and any(character.isalnum() for character in name)
    )


def quoted(name: str) -> str:
    """Quote a name; letters beyond ASCII as numbers, invisible characters left for escaping."""
    shown = (
        each if each.isascii() or not escaping.is_plain(each) else ascii(each).strip("'") for each in name
    )
    return f"'{''.join(shown)}'"
