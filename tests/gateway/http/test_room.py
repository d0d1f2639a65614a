"""Requests and their bytes have so much room, and one tenant leaves some of it to others."""

import pytest

from producers.gateway.http.places import Stay
from producers.gateway.http.problems import RequestRefused
from producers.gateway.shares import Shares


def test_bodies_that_would_fill_the_memory_are_refused_and_make_room_again() -> None:
    places, room = Shares(9), Shares(90)
    first, second, other = (Stay(places, room) for _ in range(3))
    first.begin("acme")
    second.begin("acme")
    other.begin("globex")
    first.add(80)

    with pytest.raises(RequestRefused) as full:
        second.add(5)
    other.add(9)
    for stay in (first, second, other):
        stay.end()

    assert full.value.problem.status == 429
    assert (places.taken, room.taken) == (0, 0)


def test_one_tenant_leaves_places_to_others() -> None:
    places, room = Shares(90), Shares(100)
    for _ in range(80):
        Stay(places, room).begin("acme")

    with pytest.raises(RequestRefused):
        Stay(places, room).begin("acme")
    Stay(places, room).begin("globex")
