"""What is missing or unwise in a deployment, found before it hurts."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what, whether it is fine, what was found, and what to do about it.

    `unreachable` marks the findings that say that a dependency could not be asked at all.
    """

    what: str
    fine: bool
    found: str
    advice: str | None = None
    unreachable: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Give the finding as a JSON object."""
        return asdict(self)
