"""What the site does with links out of `docs/`: their text stays, since the site has no such page."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element

from markdown import Markdown
from markdown.extensions import Extension
from markdown.treeprocessors import Treeprocessor

TOP = Path(__file__).parents[2]
_UP = re.compile(r"^(\.\./)+")


def leaves_docs(target: str) -> bool:
    """Whether a relative link leads to a file of the repository that is no page of the site."""
    way = _UP.match(target)
    inside = _UP.sub("", target).partition("#")[0]
    return way is not None and not (TOP / "docs" / inside).exists() and (TOP / inside).exists()


class _Unlink(Treeprocessor):
    def run(self, root: Element) -> None:
        for link in root.iter("a"):
            if leaves_docs(link.get("href", "")):
                link.tag, link.attrib = "span", {"title": _UP.sub("", link.attrib["href"])}


class Unlink(Extension):
    """The extension of Python-Markdown, as `zensical.toml` names it."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - its name in Python-Markdown
        """Register it after the links are made."""
        md.treeprocessors.register(_Unlink(md), "unlink", 1)


def makeExtension(**options: object) -> Unlink:  # noqa: N802 - its name in Python-Markdown
    """Make the extension."""
    return Unlink(**options)
