"""All bodies together have so much room, and no more."""

import pytest

from producers.gateway.http.problems import Refused
from producers.gateway.http.reading import Held, Room


def test_bodies_that_would_fill_the_memory_are_refused_and_make_room_again() -> None:
    room = Room(100)
    first, second = Held(room), Held(room)
    first.add(60)

    with pytest.raises(Refused) as full:
        second.add(60)
    first.release()
    second.release()

    assert full.value.problem.status == 429
    assert room.held_bytes == 0
