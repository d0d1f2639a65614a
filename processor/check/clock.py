"""The comparison of another machine's clock with ours."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from processor.check import Finding, judge

GAP_MAX = timedelta(seconds=2)
"""More than network latency, less than a gap that makes `sent_at` and `stored_at` misleading together."""

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the time of our clock."""
    return datetime.now(UTC)


def compare_clock(what: str, ours: tuple[datetime, datetime], theirs: tuple[datetime, datetime]) -> Finding:
    """Compare our time before and after the request with the earliest and latest time of the response.

    Only a gap beyond the round trip and the rounding of the response counts.
    """
    ahead, behind = theirs[0] - ours[1], ours[0] - theirs[1]
    gap = max(ahead, behind, timedelta())
    fine = gap <= GAP_MAX
    side = "ahead of" if ahead > behind else "behind"
    return judge(
        what,
        f"within {GAP_MAX.total_seconds():.0f} s of ours"
        if fine
        else f"{gap.total_seconds():.1f} s {side} ours",
        fine=fine,
        advice="synchronize both clocks by NTP: sent_at, stored_at and received_at come from three machines, "
        "and AWS refuses calls whose signature is off by more than 5 minutes",
    )
