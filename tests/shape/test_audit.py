"""What `make audit` looks at is all there is to look at, and what it was told not to see has a reason."""

import re
import subprocess
from pathlib import Path

TOP = Path(__file__).parents[2]
MAKEFILE = (TOP / "Makefile").read_text(encoding="utf-8")

_INVISIBLE = re.compile("[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x7f-\x9f]")
"""What shows text in another order than it is read, or not at all."""

_SECRET = re.compile(
    r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----|ep_[0-9a-f]{16}_[A-Za-z0-9_-]{43}"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bA[KS]IA(?!.{0,13}(?:EXAMPLE|0000))[A-Z0-9]{16}\b"
)


def _tracked() -> dict[str, str]:
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = {name: TOP / name for name in names.split("\0") if name}
    return {name: path.read_text(encoding="utf-8") for name, path in paths.items() if path.is_file()}


FILES = _tracked()


def test_what_ci_runs_audits() -> None:
    assert re.search(r"^check: .*\baudit\b", MAKEFILE, re.MULTILINE)
    assert re.search(r"^test: setup\n(\t.*\n)*\t.*\$\(MAKE\) .*\bcheck\b", MAKEFILE, re.MULTILINE)
    assert FILES[".ci/run"].rstrip().endswith("make test EVERYTHING=1")


def test_every_script_and_every_dockerfile_is_audited() -> None:
    scripts = {name for name, text in FILES.items() if re.match(r"#!.*\b(ba|da)?sh\b", text)}
    dockerfiles = {name for name in FILES if Path(name).name.startswith("Dockerfile")}
    [named] = re.findall(r"^SCRIPTS := (.*)$", MAKEFILE, re.MULTILINE)

    assert set(named.split()) == scripts
    assert all(f"hadolint --failure-threshold style {name}" in MAKEFILE for name in dockerfiles)


def test_there_are_no_workflows_that_nobody_audits() -> None:
    workflows = [name for name in FILES if name.startswith((".github/", ".gitlab-ci", ".forgejo/"))]

    assert not workflows, "let `make audit` look at them, too: zizmor does"


def test_a_rule_of_security_is_switched_off_with_a_reason_beside_it() -> None:
    bare = [
        f"{name}:{number}"
        for name, text in FILES.items()
        if name.endswith(".py") and name.startswith(("processor/", "producers/"))
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(r"# noqa: (?=.*\bS\d{3}\b)(?!.* - \S)", line)
    ]

    assert bare == []


def test_no_file_shows_itself_otherwise_than_it_is_read() -> None:
    found = [f"{name}: {match[0]!r}" for name, text in FILES.items() if (match := _INVISIBLE.search(text))]

    assert found == []


def test_no_file_has_a_secret_in_it() -> None:
    found = [f"{name}: {match[0][:12]}…" for name, text in FILES.items() if (match := _SECRET.search(text))]

    assert found == []
