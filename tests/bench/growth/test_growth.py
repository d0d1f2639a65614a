"""The measurement runs the documented queries, and reports errors in one line."""

import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.bench.growth.__main__ import main
from tests.bench.growth.questions import ten_questions
from tests.bench.growth.samples import SIZE_BYTES, deliveries, new_id, samples


def test_it_asks_the_ten_questions_of_the_readme() -> None:
    questions = dict(ten_questions())

    assert len(questions) == 10
    assert "FROM duplicate" in questions["Who sends the same event twice?"]


def test_a_message_is_of_the_size_that_is_promised() -> None:
    sizes = {len(delivery.body) for delivery in deliveries(100, "random", random.Random(1))}

    assert sizes == {SIZE_BYTES}


def test_time_ordered_ids_are_of_one_shape_and_begin_with_the_moment() -> None:
    first, second = new_id("time"), new_id("time")

    assert [len(part) for part in first.split("-")] == [8, 4, 4, 4, 12]
    assert first[14] == "7"
    assert first[:13] <= second[:13]


def test_the_loudest_tenant_is_the_one_that_the_questions_name() -> None:
    tenants = [sample.tenant_id for sample in samples()]

    assert max(set(tenants), key=tenants.count) == "acme"
    assert len(set(tenants)) == 100


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rows", "many"], "'many' is not a list of numbers"),
        (["--rows", "5"], "ask for more"),
        (["--steps", "fill,dance"], "no such step: dance"),
        (["--ids", "sorted"], "'sorted' is not one of"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_made(
    tmp_path: Path, options: list[str], said: str
) -> None:
    done = CliRunner().invoke(main, [*options, "--folder", str(tmp_path / "load")])

    assert done.exit_code == 2
    assert said in done.output
    assert not (tmp_path / "load").exists()


def test_a_disk_without_room_is_told_in_one_line_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage())

    done = CliRunner().invoke(main, ["--rows", "10000", "--folder", str(tmp_path)])

    assert done.exit_code == 1
    assert "has 1 GB free; expected at least 6 GB; ask for fewer --rows" in done.output
    assert len(done.output.splitlines()) == 1
    assert not any(tmp_path.iterdir())


class _Usage:
    free = 1_000_000_000
