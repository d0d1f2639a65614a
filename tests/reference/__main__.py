"""`python -m tests.reference`: write the made pages of `docs/reference` anew."""

import tempfile
from pathlib import Path

from tests.reference import FOLDER
from tests.reference.commands import commands_page
from tests.reference.settings import settings_page
from tests.reference.tables import migrated_tables_page


def main() -> None:
    """Write every page that differs."""
    with tempfile.TemporaryDirectory() as folder:
        pages = {
            "commands.md": commands_page(),
            "settings.md": settings_page(),
            "tables.md": migrated_tables_page(Path(folder)),
        }
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
