"""Compares two versions of a schema, in a process with limits on CPU time and memory.

    compare() ─▶ stdin: both ─▶ under the kernel's CPU limit ─▶ stdout: differences, then one verdict a line

The output before the end of the process counts: the library for proofs is young, and a stack overflow kills
the process.
"""

import resource
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from processor.schemas.compare.compatibility import Compared, Verdict, takes_all
from processor.schemas.compare.differences import differences, incomparable
from processor.schemas.compare.plain_differences import Difference
from processor.schemas.schema_text import schema_value

CPU_S = 10
MEMORY_BYTES_MAX = 2 * 1024 * 1024 * 1024
COMPATS = ("none", "backward", "forward", "full")
COMMAND = [sys.executable, "-m", "processor.schemas.compare.comparing"]
_WAIT_S = 6 * CPU_S
"""Wall-clock limit, on a machine with other work."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a schema: its name, its definition as text, and its mode for formats."""

    name: str
    definition: str
    formats: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences, and the compatibility of the new version.

    `backward`: the new version accepts every payload that the old one accepts. `forward`: the old version
    accepts every payload that the new one accepts.
    """

    differences: list[Difference]
    backward: Verdict
    forward: Verdict

    def broken(self, compat: str) -> list[tuple[str, Verdict]]:
        """Return the directions of a compatibility that are not proven."""
        asked = {"backward": self.backward, "forward": self.forward}
        return [
            (promise, verdict)
            for promise, verdict in asked.items()
            if compat in (promise, "full") and verdict.answer != "yes"
        ]


def compare(old: Version, new: Version) -> Comparison:
    """Compare two versions; without a result in time the answer is "unknown". Raises nothing."""
    try:
        done = subprocess.run(  # noqa: S603 - a program of ours
            COMMAND, input=msgspec.json.encode((old, new)), capture_output=True, timeout=_WAIT_S, check=False
        )
        lines = done.stdout.splitlines()
    except subprocess.TimeoutExpired as late:
        lines = (late.stdout or b"").splitlines()
    if not lines:
        found = [incomparable("the comparison takes too much time or memory, or a version can't be read")]
    else:
        found = msgspec.json.decode(lines[0], type=list[Difference])
    verdicts = [msgspec.json.decode(line, type=Verdict) for line in lines[1:]]
    by_words = [any(one.narrows for one in found), any(one.widens for one in found)]
    verdicts += [Verdict("unknown" if may else "yes") for may in by_words[len(verdicts) :]]
    return Comparison(found, *verdicts)


def main() -> None:
    """Read a pair of versions from stdin, and write each result as soon as it is known."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        # Not supported everywhere.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    pair = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[Version, Version])
    old, new = (Compared(schema_value(version.definition), version.formats) for version in pair)
    _write(differences(old.definition, new.definition, formats=(old.formats, new.formats)))
    _write(takes_all(new, old))
    _write(takes_all(old, new))


def _write(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
