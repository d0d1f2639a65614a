"""The deployment check: problems and risks in settings, database and queue, found before they do harm.

The check is read-only. Permissions to receive and delete are not tested: a receive would raise the message's
receive count.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_LIST_MAX = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: its name, whether it is fine, the observation, and advice.

    A fine finding may have advice too: a note for the operator about a risk.
    `unreachable` marks a dependency that did not respond.
    """

    what: str
    fine: bool
    found: str
    advice: str | None = None
    unreachable: bool = False

    @property
    def mark(self) -> str:
        """The mark in the list: `ok`, `note` (fine with advice) or `!!` (problem)."""
        return "!!" if not self.fine else "note" if self.advice else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return asdict(self)


def judge(what: str, found: str, *, fine: bool, advice: str) -> Finding:
    """Make a finding with advice only if it is not fine."""
    return Finding(what, fine=fine, found=found, advice=None if fine else advice)


def tell(what: str, found: str, *, note: bool = False, advice: str = "") -> Finding:
    """Make a finding that is always fine, with advice only if `note` is True."""
    return Finding(what, fine=True, found=found, advice=advice if note else None)


def not_set(what: str, variable: str, example: str) -> Finding:
    """Make the finding for a dependency that is not configured."""
    return Finding(
        what,
        fine=False,
        found=f"{variable} is not set",
        advice=f"set it in the environment or in .env: {example}",
    )


def summed_up(findings: Sequence[Finding]) -> str:
    """Count the findings by their marks, in one line."""
    marks = Counter(finding.mark for finding in findings)
    return ", ".join(
        f"{marks[mark]} {word if marks[mark] == 1 or mark == 'ok' else word + 's'}"
        for mark, word in (("ok", "ok"), ("note", "note"), ("!!", "problem"))
    )


def listed(names: Sequence[str]) -> str:
    """Join the first few names, and count the rest."""
    more = len(names) - _LIST_MAX
    return ", ".join(names[:_LIST_MAX]) + (f" and {more} more" if more > 0 else "")
