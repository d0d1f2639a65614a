"""Every link of every page leads to a file that is there, and to a heading that the file has."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from pymdownx.slugs import slugify

from tests.reference.site import leaves_docs

TOP = Path(__file__).parents[2]
_LINK = re.compile(r"\]\((?P<target>[^)#\s]*)(?:#(?P<anchor>[^)\s]*))?\)")
_HEADING = re.compile(r"^#{1,6} +(?P<title>.+?) *#*$", re.MULTILINE)
_CODE = re.compile(
    r"^ *(?P<fence>```+|~~~+).*?^ *(?P=fence) *$|(?P<ticks>`+).+?(?P=ticks)", re.MULTILINE | re.DOTALL
)
_slug = slugify(case="lower")


def _pages() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=TOP, capture_output=True, text=True, check=True)
    return [TOP / name for name in listed.stdout.splitlines()]


def _links(page: Path) -> Iterator[tuple[str, str]]:
    """Give the file and the anchor of each link, without those in code and those to other hosts."""
    for link in _LINK.finditer(_CODE.sub("`code`", page.read_text(encoding="utf-8"))):
        if "://" not in link["target"] and not link["target"].startswith("mailto:"):
            yield link["target"], link["anchor"] or ""


@cache
def _anchors(page: Path) -> set[str]:
    """Give the anchors as code hosts and the site make them: a second heading of one title gets -1."""
    text = re.sub(
        r"^ *(```+|~~~+).*?^ *\1 *$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    found: set[str] = set()
    for heading in _HEADING.finditer(text):
        title = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading["title"]).replace("`", "")
        slug, number = _slug(title, "-"), 1
        name = slug
        while name in found:
            name, number = f"{slug}-{number}", number + 1
        found.add(name)
    return found


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.relative_to(TOP).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target, anchor in _links(page):
        path = page.parent / target if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in _anchors(path)):
            broken.append(f"{target}#{anchor}" if anchor else target)

    assert broken == []


def test_a_link_to_nothing_and_one_to_no_heading_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n[here](#a-b-c) [no](#d) [gone](x.md) `[code](y.md)` [far](https://x.example/)\n"
    )

    assert list(_links(page)) == [("", "a-b-c"), ("", "d"), ("x.md", "")]
    assert _anchors(page) == {"a-b-c"}


@pytest.mark.parametrize(
    ("target", "leaves"),
    [
        ("../../processor/__init__.py", True),
        ("../sql/README.md#sql", True),
        ("../reference/formats.md#binding", False),
        ("formats.md", False),
        ("https://example.com/", False),
    ],
)
def test_the_site_knows_links_that_leave_it(target: str, *, leaves: bool) -> None:
    assert leaves_docs(target) is leaves
