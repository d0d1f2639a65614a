"""Whether another machine's clock agrees with ours."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from processor.check import Finding, judge

GAP_MAX = timedelta(seconds=2)
"""More than a network adds, less than what misleads somebody who reads `sent_at` beside `stored_at`."""

Now = Callable[[], datetime]


def utc_now() -> datetime:
    """Give the time by our clock."""
    return datetime.now(UTC)


def compare_clock(what: str, ours: tuple[datetime, datetime], theirs: tuple[datetime, datetime]) -> Finding:
    """Compare our clock before and after asking with the earliest and latest time their answer can mean.

    Only a difference that neither the way of the question nor the rounding of the answer explains counts.
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
        advice="let NTP set the clocks of both machines: sent_at, stored_at and received_at come from three "
        "of them, and AWS refuses calls signed more than 5 minutes off",
    )
