"""Two versions of a schema compared, in a process of its own with a bound on its CPU time."""

import subprocess
import sys
from dataclasses import dataclass

import msgspec

from processor.validation.comparison_process import CPU_S, Pair
from processor.validation.compatibility import Verdict
from processor.validation.differences import incomparable
from processor.validation.plain_words import Difference

COMPATS = ("none", "backward", "forward", "full")
COMMAND = [sys.executable, "-m", "processor.validation.comparison_process"]
_WAIT_S = 6 * CPU_S
"""By the clock, on a machine that has other work."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a schema: its name to people, its definition as text, and how it takes formats."""

    name: str
    definition: str
    formats: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed, and which promises the new version keeps.

    `backward`: the new version takes every payload that the old one took. `forward`: it takes none that the
    old one refused.
    """

    differences: list[Difference]
    backward: Verdict
    forward: Verdict

    def broken(self, compat: str) -> list[tuple[str, Verdict]]:
        """Give the promises of a compatibility that are not known to be kept."""
        asked = {"backward": self.backward, "forward": self.forward}
        return [
            (promise, verdict)
            for promise, verdict in asked.items()
            if compat in (promise, "full") and verdict.answer != "yes"
        ]


def compare(old: Version, new: Version) -> Comparison:
    """Compare two versions; what can't be known in time is unknown. Raises nothing."""
    pair = Pair((old.definition, old.formats), (new.definition, new.formats))
    try:
        done = subprocess.run(  # noqa: S603 - a program of ours
            COMMAND, input=msgspec.json.encode(pair), capture_output=True, timeout=_WAIT_S, check=False
        )
        lines = done.stdout.splitlines()
    except subprocess.TimeoutExpired as late:
        lines = (late.stdout or b"").splitlines()
    if not lines:
        found = [incomparable("it takes too much time or memory, or a version can't be read")]
    else:
        found = msgspec.json.decode(lines[0], type=list[Difference])
    verdicts = [msgspec.json.decode(line, type=Verdict) for line in lines[1:]]
    by_words = [any(one.narrows for one in found), any(one.widens for one in found)]
    verdicts += [Verdict("unknown" if may else "yes") for may in by_words[len(verdicts) :]]
    return Comparison(found, *verdicts)
