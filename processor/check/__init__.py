"""What is missing or unwise in a deployment, found before it hurts: in the database and at the queue.

Nothing is changed by looking. What could only be learnt by a change is not looked at: whether we may
receive and delete shows at the first receive, which costs a message one of the few that it has.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

_LIST_MAX = 6


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what, whether it is fine, what was found, and what to do about it.

    A fine finding may carry advice too: something that works, and that an operator should know of.
    `unreachable` marks the findings that say that a dependency could not be asked at all.
    """

    what: str
    fine: bool
    found: str
    advice: str | None = None
    unreachable: bool = False

    @property
    def mark(self) -> str:
        """Give what it is listed with: fine, fine with a note, or a problem."""
        return "!!" if not self.fine else "note" if self.advice else "ok"

    def as_dict(self) -> dict[str, Any]:
        """Give the finding as a JSON object."""
        return asdict(self)


def judge(what: str, found: str, *, fine: bool, advice: str) -> Finding:
    """Make a finding whose advice is given only if it is not fine."""
    return Finding(what, fine=fine, found=found, advice=None if fine else advice)


def tell(what: str, found: str, *, note: bool = False, advice: str = "") -> Finding:
    """Make a finding that is fine whatever was found; its advice is given only with a `note`."""
    return Finding(what, fine=True, found=found, advice=advice if note else None)


def not_set(what: str, variable: str, example: str) -> Finding:
    """Make the finding for a dependency that nobody has named."""
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
    """Name the first few of them, and count the rest."""
    more = len(names) - _LIST_MAX
    return ", ".join(names[:_LIST_MAX]) + (f" and {more} more" if more > 0 else "")
