from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.gateway.shares import Shares, holder_of


def take_all(shares: Shares, holder: str, amount: int = 1) -> int:
    while shares.take(holder, amount):
        pass
    return shares.held(holder)


def test_one_holder_alone_comes_to_eight_ninths() -> None:
    assert take_all(Shares(900), "greedy") == 800


def test_who_holds_nothing_finds_something_left_whatever_one_other_holds() -> None:
    shares = Shares(900)
    take_all(shares, "greedy")
    assert take_all(shares, "quiet") > 80


def test_two_that_take_in_turns_come_to_the_same() -> None:
    shares = Shares(1700)
    while any([shares.take("a"), shares.take("b")]):
        pass
    assert (shares.held("a"), shares.held("b")) == (800, 800)


def test_what_was_given_back_is_there_for_others() -> None:
    shares = Shares(9)
    assert take_all(shares, "greedy") == 8
    shares.give_back("greedy", 8)
    assert take_all(shares, "other") == 8


@given(st.integers(1, 500), st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 60), st.booleans())))
def test_the_books_agree_whatever_is_taken_and_given_back(
    total: int, steps: list[tuple[str, int, bool]]
) -> None:
    shares = Shares(total)
    held: Counter[str] = Counter()
    for holder, amount, gives in steps:
        if gives:
            if given_back := min(amount, held[holder]):
                shares.give_back(holder, given_back)
                held[holder] -= given_back
        elif shares.take(holder, amount):
            held[holder] += amount
        assert shares.taken == held.total() <= total
        assert {name: shares.held(name) for name in "abc"} == {name: held[name] for name in "abc"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("unix:", "unix:", True),
    ],
)
def test_an_address_of_ipv6_counts_with_its_neighbours(one: str, other: str, *, same: bool) -> None:
    assert (holder_of(one) == holder_of(other)) is same
