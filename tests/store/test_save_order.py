"""What is saved together: each position once, groups in their order, and suspects alone."""

from hypothesis import given
from hypothesis import strategies as st

from processor.store.save_order import SaveStage, parts_in_order

kinds = st.sampled_from(list(SaveStage))
groups = st.sampled_from([None, None, "a", "b"])


@given(st.lists(st.tuples(kinds, groups), max_size=12))
def test_every_position_has_its_turn_once_and_groups_keep_their_order(
    items: list[tuple[SaveStage, str | None]],
) -> None:
    parts = parts_in_order([kind for kind, _ in items], lambda position: items[position][1])

    flat = [position for part in parts for position in part]
    assert sorted(flat) == list(range(len(items)))
    assert all(parts)
    for name in ("a", "b"):
        of_group = [position for position in flat if items[position][1] == name]
        assert of_group == sorted(of_group)
    for part in parts:
        assert len(part) == 1 or SaveStage.ALONE not in [items[position][0] for position in part]
    ungrouped = [[items[position][0] for position in part if items[position][1] is None] for part in parts]
    for kind in (SaveStage.FIRST, SaveStage.SECOND):
        assert sum(kind in part for part in ungrouped) <= 1, "those of one kind are saved together"


def test_what_was_handed_over_before_comes_second_and_suspects_last() -> None:
    order = [SaveStage.SECOND, SaveStage.ALONE, SaveStage.FIRST, SaveStage.SECOND, SaveStage.FIRST]

    assert parts_in_order(order, lambda _: None) == [[2, 4], [0, 3], [1]]


def test_what_comes_later_in_a_group_waits_with_it() -> None:
    order = [SaveStage.FIRST, SaveStage.SECOND, SaveStage.FIRST, SaveStage.ALONE, SaveStage.FIRST]

    assert parts_in_order(order, lambda _: "a") == [[0], [1, 2], [3], [4]]
