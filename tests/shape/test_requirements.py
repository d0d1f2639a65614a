"""What is installed is named to the byte in requirements/, and agrees with what pyproject.toml asks for."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

TOP = Path(__file__).parents[2]
LOCKS = TOP / "requirements"
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))
DOORS = ["gateway", "kafka", "rabbitmq"]
EXTRAS = {
    "runtime": [],
    "doors": DOORS,
    "development": [*DOORS, "devstack", "docs", "test"],
    "load": [*DOORS, "devstack", "docs", "test", "load"],
}
"""Which extras of pyproject.toml each file covers."""

_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """One package of a lock: what is written before its hashes, and these."""

    requirement: Requirement
    hashes: list[str]


def _pins(name: str) -> dict[str, Pin]:
    text = (LOCKS / f"{name}.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    pins: dict[str, Pin] = {}
    for line in text.splitlines():
        written, *hashes = re.split(r"\s+(?=--)", line.strip())
        pin = Pin(Requirement(written), hashes)
        pins[canonicalize_name(pin.requirement.name)] = pin
    return pins


def _asked(name: str) -> Iterator[Requirement]:
    yield from map(Requirement, PROJECT["project"]["dependencies"])
    for extra in EXTRAS[name]:
        yield from map(Requirement, PROJECT["project"]["optional-dependencies"][extra])


def _built_with() -> dict[str, Requirement]:
    lines = (LOCKS / "build.in").read_text(encoding="utf-8").splitlines()
    found = map(Requirement, (line for line in lines if not line.startswith("#")))
    return {requirement.name: requirement for requirement in found}


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_every_package_has_one_version_and_the_hashes_of_its_files(name: str) -> None:
    for package, pin in _pins(name).items():
        assert re.fullmatch(r"==[^,*]+", str(pin.requirement.specifier)), package
        assert pin.hashes, package
        assert all(_HASH.fullmatch(written) for written in pin.hashes), package


@pytest.mark.parametrize("name", [*EXTRAS, "build"])
def test_a_lock_names_no_registry_and_no_path(name: str) -> None:
    text = (LOCKS / f"{name}.txt").read_text(encoding="utf-8")

    assert not re.search(r"://|/|#|@|--(?!hash=)", text)


@pytest.mark.parametrize("name", EXTRAS)
def test_what_pyproject_asks_for_is_locked_within_its_range(name: str) -> None:
    pins = _pins(name)

    for asked in _asked(name):
        pin = pins[canonicalize_name(asked.name)]
        [version] = pin.requirement.specifier
        assert asked.specifier.contains(version.version), f"{asked}: run `make lock`"
        assert asked.marker is not None or pin.requirement.marker is None, asked


def test_what_builds_the_project_is_locked_too() -> None:
    pins, inputs = _pins("build"), _built_with()

    for asked in map(Requirement, PROJECT["build-system"]["requires"]):
        assert inputs[asked.name].specifier == asked.specifier
    for asked in inputs.values():
        [version] = pins[canonicalize_name(asked.name)].requirement.specifier
        assert asked.specifier.contains(version.version), f"{asked}: run `make lock`"


def test_a_package_has_the_same_version_in_every_lock() -> None:
    everything = _pins("load")

    for name in ("runtime", "development", "build"):
        for package, pin in _pins(name).items():
            assert name == "build" or package in everything
            if package in everything:
                assert pin == everything[package]


@pytest.mark.parametrize("path", ["Makefile", "deployments/Dockerfile"])
def test_whoever_installs_asks_for_the_hashes_and_fetches_nothing_else(path: str) -> None:
    """`pip` fetches what a package is built with behind its own list, unless told not to."""
    text = (TOP / path).read_text(encoding="utf-8").replace("\\\n", " ")
    installing = [
        command
        for line in text.splitlines()
        if not line.startswith("#")
        for command in line.split("&&")
        if re.search(r"\bpip (install|wheel)\b|\$\(INSTALL\)", command) and "INSTALL :=" not in command
    ]

    assert len(installing) >= 3
    for command in installing:
        if "tools/" in command or "$(TOOLS)" in command:
            continue
        locked = "--require-hashes -r requirements/" in command
        assert locked or "--no-deps" in command, command
        unbuilt = "requirements/build.txt" in command or "--no-index" in command
        assert unbuilt or "--no-build-isolation" in command or "$(INSTALL)" in command, command
    assert path != "Makefile" or re.search(r"^INSTALL := .*--no-build-isolation", text, re.MULTILINE)
