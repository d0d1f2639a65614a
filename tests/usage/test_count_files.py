"""The counter's files: a name for every event type, and never half a file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from processor.errors import SettingsError
from processor.runtime.escaping import is_plain
from processor.usage.count_files import Replacement, file_name, require_writable

ODD = [
    "created",
    "Created",
    "CREATED",
    "order.created",
    ".",
    "..",
    ".hidden",
    "%2ehidden",
    "a/b",
    "a\\b",
    "a%2fb",
    "a%2Fb",
    "a:b",
    "a*b?",
    "a b ",
    "a b",
    "a.",
    "a",
    "con",
    "CON",
    "%63on",
    "nul.tar",
    "lpt1",
    "lpt10",
    "../../etc/passwd",
    "Zoë",
    "Zoe\u0308",
    "田" * 256,
    "田" * 255 + "由",
    "x" * 256,
    "x" * 255 + "y",
    "x" * 100 + "%~",
    "-rf",
    "~",
]


def test_ordinary_event_types_keep_their_names() -> None:
    assert file_name("created") == "created.json"
    assert file_name("order.created_v2-b") == "order.created_v2-b.json"


@pytest.mark.parametrize(
    ("event_type", "name"),
    [
        ("a/B", "a%2f%42.json"),
        ("..", "%2e..json"),
        ("nul.x", "%6eul.x.json"),
        ("ü", "%c3%bc.json"),
        ("a%b", "a%25b.json"),
    ],
)
def test_what_a_file_system_may_not_like_is_written_by_its_bytes(event_type: str, name: str) -> None:
    assert file_name(event_type) == name


def test_no_two_event_types_share_a_file_even_where_case_does_not_count() -> None:
    names = [file_name(event_type) for event_type in ODD]

    assert len({name.casefold() for name in names}) == len(ODD)


@pytest.mark.parametrize("event_type", ODD)
def test_every_name_is_one_that_any_file_system_takes(event_type: str, tmp_path: Path) -> None:
    name = file_name(event_type)

    assert len(name) <= 255
    assert not set(name) & set('/\\:*?"<>| ')
    assert name.isascii()
    assert name == name.lower()
    assert not name.startswith(".")
    assert name.split(".")[0] not in ("con", "nul", "lpt1")
    (tmp_path / name).write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_is_a_json_object_whatever_the_users_are_called(tmp_path: Path) -> None:
    counts = [("", 1), ('"', 2), ("\n", 3), ("Zoë 田", 10**30)]

    with Replacement(tmp_path / "new" / "deep") as replacement:
        assert replacement.write("created.json", counts) == 4
        assert replacement.write("deleted.json", []) == 0
        replacement.put_in_place()

    assert json.loads((tmp_path / "new" / "deep" / "created.json").read_text("utf-8")) == dict(counts)
    assert (tmp_path / "new" / "deep" / "deleted.json").read_text("utf-8") == "{}\n"


def test_a_file_of_counts_has_nothing_that_a_terminal_obeys_or_hides(tmp_path: Path) -> None:
    odd = "a\x9b31m\x7f\u202e\u2028\u3164\ufe0f\U000e0100\udc80é\U0001f980"
    with Replacement(tmp_path) as files:
        files.write("created.json", [(odd, 1)])
        files.put_in_place()

    written = (tmp_path / "created.json").read_text(encoding="utf-8")
    assert json.loads(written) == {odd: 1}
    assert is_plain(written.replace("\n", ""))
    assert "é\U0001f980" in written


def test_what_fails_half_way_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "created.json").write_text("old")

    def breaking() -> Iterator[tuple[str, int]]:
        yield "u1", 1
        raise ConnectionError("gone")

    def replace() -> None:
        with Replacement(tmp_path) as replacement:
            replacement.write("created.json", [("u1", 1)])
            replacement.write("deleted.json", breaking())
            replacement.put_in_place()

    with pytest.raises(SettingsError, match="can't take the files: gone"):
        replace()

    assert [path.name for path in tmp_path.iterdir()] == ["created.json"]
    assert (tmp_path / "created.json").read_text() == "old"


def test_a_file_in_the_place_of_the_directory_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(SettingsError, match="expected a directory that we may write to"):
            require_writable(place)


def test_to_ask_whether_a_directory_can_be_written_to_leaves_nothing_in_it(tmp_path: Path) -> None:
    require_writable(tmp_path / "new")

    assert list((tmp_path / "new").iterdir()) == []
