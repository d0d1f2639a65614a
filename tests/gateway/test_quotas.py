"""A tenant sends what it may, and whoever is quiet takes no memory."""

import pytest

from producers.gateway import quotas
from producers.gateway.quotas import Quotas


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def taken(quota: Quotas, tenant_id: str, count: int) -> int:
    """How many of so many events are within the quota."""
    return sum(quota.take(tenant_id) is None for _ in range(count))


def test_without_a_rate_there_is_no_bound(clock: Clock) -> None:
    quota = Quotas(None, clock=clock)

    assert taken(quota, "acme", 10_000) == 10_000
    assert len(quota) == 0


def test_two_seconds_worth_may_come_at_once_and_then_the_rate_holds(clock: Clock) -> None:
    quota = Quotas(10, clock=clock)

    assert taken(quota, "acme", 100) == 20
    clock.now_s += 0.5
    assert taken(quota, "acme", 100) == 5
    clock.now_s += 60
    assert taken(quota, "acme", 100) == 20


def test_no_more_is_saved_up_than_may_come_at_once(clock: Clock) -> None:
    quota = Quotas(100, clock=clock)
    assert quota.take("acme") is None

    clock.now_s += 0.9

    assert taken(quota, "acme", 500) == 200


def test_a_slow_tenant_may_still_send_one(clock: Clock) -> None:
    quota = Quotas(0.1, clock=clock)

    assert taken(quota, "acme", 3) == 1


def test_the_burst_can_be_set(clock: Clock) -> None:
    assert taken(Quotas(10, burst=3, clock=clock), "acme", 100) == 3


def test_it_says_in_how_many_seconds_there_is_room_again(clock: Clock) -> None:
    quota = Quotas(0.25, burst=1, clock=clock)
    assert quota.take("acme") is None

    assert quota.take("acme") == 4
    clock.now_s += 3.5
    assert quota.take("acme") == 1
    clock.now_s += 0.5
    assert quota.take("acme") is None


def test_who_may_wait_is_told_how_long_and_never_longer_than_so(clock: Clock) -> None:
    quota = Quotas(2, burst=1, clock=clock)

    assert [quota.wait_s("acme", 1.25) for _ in range(5)] == [0.0, 0.5, 1.0, 1.25, 1.25]
    clock.now_s += 1.25
    assert quota.wait_s("acme", 1.25) == 0.5
    assert quota.wait_s("globex", 1.25) == 0.0
    assert Quotas(None, clock=clock).wait_s("acme", 1.25) == 0.0


def test_what_is_refused_costs_nothing(clock: Clock) -> None:
    quota = Quotas(1, burst=1, clock=clock)
    assert taken(quota, "acme", 50) == 1

    clock.now_s += 1

    assert quota.take("acme") is None


def test_tenants_do_not_take_from_each_other(clock: Clock) -> None:
    quota = Quotas(1, burst=2, clock=clock)

    assert taken(quota, "acme", 9) == 2
    assert taken(quota, "globex", 9) == 2


def test_exceptions_hold_for_their_tenants_alone(clock: Clock) -> None:
    quota = Quotas(5, rates={"acme": 50}, clock=clock)

    assert taken(quota, "acme", 500) == 100
    assert taken(quota, "globex", 500) == 10
    assert taken(Quotas(None, rates={"acme": 50}, clock=clock), "globex", 500) == 500


def test_who_is_quiet_is_forgotten_and_has_its_whole_quota_again(clock: Clock) -> None:
    quota = Quotas(10, clock=clock)
    for number in range(500):
        quota.take(f"tenant-{number}")
    assert taken(quota, "busy", 20) == 20
    assert len(quota) == 501

    clock.now_s += 1.5
    assert quota.take("busy") is None

    assert len(quota) == 1
    assert taken(quota, "tenant-0", 100) == 20


def test_names_that_are_made_up_take_no_more_than_so_much_memory(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quotas, "BUCKETS_MAX", 50)
    quota = Quotas(0.001, burst=1, clock=clock)

    for number in range(1000):
        quota.take(f"tenant-{number}")

    assert len(quota) == 50
    assert quota.take("tenant-999") is not None
