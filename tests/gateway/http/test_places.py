"""Whoever holds most connections loses the longest idle ones to who comes."""

from collections import Counter
from collections.abc import Hashable

from hypothesis import given
from hypothesis import strategies as st

from producers.gateway.http.places import Visitors


class Client:
    def __init__(self, holder: Hashable, log: list["Client"]) -> None:
        self.holder = holder
        self._log = log

    def evict(self) -> None:
        self._log.append(self)

    async def waits(self, seconds: float) -> None:
        """Not asked here."""


def test_those_who_hold_most_lose_their_longest_idle_one() -> None:
    evicted: list[Client] = []
    visitors = Visitors(20)
    greedy = [Client("greedy", evicted) for _ in range(18)]
    quiet = [Client("quiet", evicted) for _ in range(3)]
    assert all(map(visitors.enter, (*quiet[:1], *greedy[:17], *quiet[1:])))
    visitors.works(greedy[0])
    evicted.clear()

    assert visitors.enter(greedy[17])

    assert evicted == greedy[1:3], "the first one works, and who is quiet has been idle for longest"


def test_nobody_is_evicted_for_somebody_who_holds_more() -> None:
    evicted: list[Client] = []
    visitors = Visitors(9)
    for client in [Client("greedy", evicted) for _ in range(8)]:
        assert visitors.enter(client)
        visitors.works(client)
    assert visitors.enter(Client("quiet", evicted))

    assert not visitors.enter(Client("greedy", evicted))
    assert evicted == []


def test_who_works_is_never_evicted_and_nobody_comes_in_where_all_work() -> None:
    evicted: list[Client] = []
    visitors = Visitors(9)
    for client in (clients := [Client("acme", evicted) for _ in range(8)]):
        assert visitors.enter(client)
        visitors.works(client)

    assert not visitors.enter(Client("acme", evicted))
    other = Client("globex", evicted)
    assert visitors.enter(other)
    visitors.works(other)
    assert not visitors.enter(Client("initech", evicted))
    visitors.rests(clients[3])
    assert visitors.enter(Client("initech", evicted))
    assert evicted == [clients[3]]


def test_room_is_made_for_many_at_once_where_there_are_many() -> None:
    evicted: list[Client] = []
    visitors = Visitors(1280)
    for number in range(1281):
        assert visitors.enter(Client(number, evicted))

    assert len(evicted) == 10


@given(
    st.integers(1, 300),
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.sampled_from(["enter", "leave", "works", "rests"]), st.integers(0, 99)
        )
    ),
)
def test_the_books_agree_whatever_comes_and_goes(total: int, steps: list[tuple[str, str, int]]) -> None:
    evicted: list[Client] = []
    visitors = Visitors(total)
    present: dict[Client, bool] = {}
    for holder, step, number in steps:
        if step == "enter":
            if visitors.enter(client := Client(holder, evicted)):
                present[client] = False
        elif present:
            client = list(present)[number % len(present)]
            getattr(visitors, step)(client)
            if step == "leave":
                del present[client]
            else:
                present[client] = step == "works"
        for client in evicted:
            assert not present.pop(client), "it works"
        evicted.clear()
        assert visitors._places.taken == len(present) <= total
        assert Counter(c.holder for c, works in present.items() if not works) == {
            holder: len(idle) for holder, idle in visitors._idle.items()
        }
