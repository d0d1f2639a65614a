"""What our texts say to install is ours, or named in pyproject.toml: a like name is a stranger's package."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TOOLS = {"grpcio-tools", "uv", "pip-audit"}
"""What the Makefile keeps in a venv of its own."""

PAGES = [TOP / "README.md", *(TOP / name / "README.md" for name in ("deployments", "sql"))]
_INSTALL = re.compile(r"\b(?:pipx?3?|uv(?: pip| tool)?) (?:install|wheel|add|download)\b([^`;)&]*)")
_WITH_VALUE = {"-r", "--requirement", "-c", "--constraint", "--wheel-dir", "--target"}


def _texts() -> list[Path]:
    """Everything that is read by people or run, but this file."""
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True, text=True, check=True)
    kept = [TOP / name for name in listed.stdout.splitlines() if not name.startswith("requirements/")]
    return [path for path in kept if path != Path(__file__)]


def _read(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")


def _installed(text: str) -> list[str]:
    """Every package that a text says to install, as it is written there."""
    found = []
    for command in _INSTALL.finditer(re.sub(r'\\\n|"\s*\n\s*f?"', " ", text)):
        line = command[1].split("\n")[0].partition("  #")[0]
        # In a sentence it ends with the last word in quotes.
        line = re.sub(r"('[^']*')(?!\s*').*", r"\1", line)
        words = [word.strip("'") for word in re.findall(r"'[^']*'|[^\s\"]+", line)]
        options = {at for at, word in enumerate(words) if word.startswith("-") or word in "\\#|"}
        values = {at + 1 for at in options if words[at] in _WITH_VALUE}
        found += [word for at, word in enumerate(words) if at not in options | values]
    return found


def _is_ours(word: str) -> bool:
    if word.startswith(".") or "$" in word or word.endswith(".whl"):
        # The checkout, a variable, and a wheel that was built of it.
        word = re.sub(r"^[^\[]*", PROJECT["name"], word)
    try:
        asked = Requirement(re.sub(r"\{[^}]*\}", "gateway", word))
    except InvalidRequirement:
        return False
    if asked.name == PROJECT["name"]:
        return asked.extras <= set(EXTRAS)
    known = {
        Requirement(line).name for group in [PROJECT["dependencies"], *EXTRAS.values()] for line in group
    }
    return canonicalize_name(asked.name) in {canonicalize_name(name) for name in known | TOOLS}


def test_no_text_says_to_install_a_strangers_package() -> None:
    strange = {
        path.relative_to(TOP).as_posix(): words
        for path in _texts()
        if (words := [word for word in _installed(_read(path)) if not _is_ours(word)])
    }

    assert strange == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("run: pip install 'event-processor[gateway]'", ["event-processor[gateway]"]),
        ('"run: "\n    f"pip install "\n    "\'event-processor[kafka]\'"', ["event-processor[kafka]"]),
        ("uv pip install event-processor  # the first", ["event-processor"]),
        ("pip install --quiet -r requirements/load.txt processor", ["processor"]),
    ],
)
def test_a_strangers_package_is_found(text: str, found: list[str]) -> None:
    assert _installed(text) == found
    assert not any(map(_is_ours, found))


@pytest.mark.parametrize(
    "page", [*PAGES, *(TOP / "docs").rglob("*.md")], ids=lambda page: str(page)[len(str(TOP)) :]
)
def test_a_page_puts_the_commands_on_the_path_before_it_types_one(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    typed = re.search(r"(?m)^(    )?(processor|producers|awslocal) [a-z]", text)

    assert not re.search(r"\.venv/bin/(processor|producers|awslocal)", text)
    assert typed is None or ". .venv/bin/activate" in text[: typed.start()]


def test_the_distribution_is_installed_under_its_name_with_the_version_of_a_tag() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert Version(version(PROJECT["name"])).release >= (0, 1)
