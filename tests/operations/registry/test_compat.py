"""What the next version of a schema changes, and that it is held to what its event type promises."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from click.testing import CliRunner, Result

from processor.cli import cli
from processor.errors import Incompatible
from processor.operations import reader, registry
from tests.fixtures.database import count

Db = psycopg.Connection[Any]
Run = Callable[..., Result]

V1: dict[str, Any] = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "total": {"type": "number", "maximum": 100}},
    "required": ["id"],
    "additionalProperties": False,
}
NARROWER = V1 | {"required": ["id", "total"]}
WIDER = V1 | {"properties": V1["properties"] | {"note": {"type": "string"}}}
OTHER = WIDER | {"required": ["id", "total"]}
# It does not narrow, but neither the structure nor the library can tell.
UNTOLD = ({"type": "string", "pattern": "^ab"}, {"type": "string", "pattern": "^a"})


@pytest.fixture
def run(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: Any = None) -> Result:
        given = None if stdin is None else json.dumps(stdin).encode()
        return CliRunner().invoke(
            cli, words, input=given, env={"DATABASE_URL": database_url}, prog_name="processor"
        )

    yield run
    structlog.reset_defaults()


def compat_of(db: Db) -> str:
    row = db.execute("SELECT compat FROM event_type WHERE event_type = 'order.lost'").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize(
    ("compat", "definition", "broken"),
    [
        ("none", OTHER, ()),
        ("backward", WIDER, ()),
        ("backward", NARROWER, ("backward",)),
        ("backward", OTHER, ("backward",)),
        ("forward", NARROWER, ()),
        ("forward", WIDER, ("forward",)),
        ("forward", OTHER, ("forward",)),
        ("full", V1 | {"title": "Lost"}, ()),
        ("full", NARROWER, ("backward",)),
        ("full", WIDER, ("forward",)),
        ("full", OTHER, ("backward", "forward")),
    ],
)
def test_a_version_is_held_to_what_its_event_type_promises(
    db: Db, compat: str, definition: Any, broken: tuple[str, ...]
) -> None:
    registry.publish_schema(db, "order.lost", V1, compat=compat)

    if not broken:
        assert registry.publish_schema(db, "order.lost", definition) == 2
        return
    with pytest.raises(Incompatible, match="not published") as refused:
        registry.publish_schema(db, "order.lost", definition)
    assert [word for word in ("backward: no", "forward: no") if word in str(refused.value)] == [
        f"{word}: no" for word in broken
    ]
    assert len(reader.schemas(db, "order.lost")) == 1
    assert registry.publish_schema(db, "order.lost", definition, breaking=True) == 2


def test_a_refusal_names_what_narrows_and_a_payload_that_would_be_refused(run: Run, db: Db) -> None:
    assert run("schema", "publish", "order.lost", "-", "--compat", "backward", stdin=V1).exit_code == 0

    refused = run("schema", "publish", "order.lost", "-", stdin=NARROWER)

    assert refused.exit_code == 3
    assert refused.stdout == ""
    assert refused.stderr == (
        "processor: not published: event type 'order.lost' asks for --compat backward; backward: no: the new "
        'version refuses {"id":""}, which the shared version 1 takes; /total: is now required; '
        "see processor schema diff order.lost latest FILE, or add --breaking if this is meant\n"
    )
    assert count(db, "event_schema") == 2

    assert run("schema", "publish", "order.lost", "-", "--breaking", stdin=NARROWER).exit_code == 0
    assert compat_of(db) == "backward"


def test_what_can_t_be_proven_is_refused_too(db: Db) -> None:
    registry.publish_schema(db, "order.lost", UNTOLD[0], compat="backward")

    with pytest.raises(Incompatible, match=r"it can't be proven that .* pattern .* may narrow or widen"):
        registry.publish_schema(db, "order.lost", UNTOLD[1])

    assert registry.publish_schema(db, "order.lost", UNTOLD[1], breaking=True) == 2


def test_a_promise_holds_for_the_version_that_makes_it(db: Db) -> None:
    registry.publish_schema(db, "order.lost", V1)

    with pytest.raises(Incompatible, match="--compat backward"):
        registry.publish_schema(db, "order.lost", NARROWER, compat="backward")
    assert compat_of(db) == "none"

    registry.publish_schema(db, "order.lost", NARROWER, compat="backward", breaking=True)
    assert compat_of(db) == "backward"
    registry.publish_schema(db, "order.lost", {"not": {}}, compat="none")
    assert compat_of(db) == "none"


def test_a_tenant_s_first_version_is_compared_with_the_shared_one_and_the_next_with_its_own(db: Db) -> None:
    registry.publish_schema(db, "order.lost", V1, compat="backward")

    with pytest.raises(Incompatible, match="the shared version 1"):
        registry.publish_schema(db, "order.lost", NARROWER, "acme")
    registry.publish_schema(db, "order.lost", WIDER, "acme")
    with pytest.raises(Incompatible, match="acme's version 1"):
        registry.publish_schema(db, "order.lost", V1, "acme")

    # Another tenant's and the shared one go on from where they are.
    registry.publish_schema(db, "order.lost", V1, "globex")
    registry.publish_schema(db, "order.lost", V1)


def test_formats_that_are_asserted_from_now_on_narrow(db: Db) -> None:
    date = {"type": "string", "format": "date"}
    registry.publish_schema(db, "order.lost", date, formats="annotate", compat="full")

    with pytest.raises(Incompatible, match=r'backward: no: .*: format "date" was added'):
        registry.publish_schema(db, "order.lost", date)
    assert registry.publish_schema(db, "order.lost", date, formats="annotate") == 2


def test_a_schema_that_could_not_be_used_took_nothing_and_its_correction_breaks_nobody(db: Db) -> None:
    registry.publish_schema(db, "order.lost", V1, compat="backward")
    db.execute(
        "INSERT INTO event_schema (event_type, version, definition) VALUES ('order.lost', 2, '{\"type\": 1}')"
    )

    assert registry.publish_schema(db, "order.lost", V1) == 3


def test_two_publishers_at_once_are_compared_one_after_the_other(database_url: str, db: Db) -> None:
    """Each is compatible with version 1, and neither with the other."""
    registry.publish_schema(db, "order.lost", V1, compat="backward")
    start = threading.Barrier(2)

    def publish(name: str) -> str:
        definition = V1 | {"properties": V1["properties"] | {name: {"type": "string"}}}
        with psycopg.connect(database_url, autocommit=True) as connection:
            start.wait()
            try:
                return str(registry.publish_schema(connection, "order.lost", definition))
            except Incompatible as error:
                return str(error)

    with ThreadPoolExecutor(2) as pool:
        answers = sorted(pool.map(publish, ("a", "b")))

    assert answers[0] == "2"
    assert "the shared version 2 takes" in answers[1]


def test_a_diff_says_what_changed_between_two_versions(run: Run, db: Db) -> None:
    registry.publish_schema(db, "order.lost", V1)
    registry.publish_schema(db, "order.lost", OTHER)

    told = run("schema", "diff", "order.lost", "1", "2")

    example = '{"id":"x","total":100,"note":""}'
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "order.lost: the shared version 1 → the shared version 2",
        "  narrows  /total: is now required",
        "  adds     /note: is new: string",
        'backward: no: the shared version 2 refuses {"id":""}, which the shared version 1 takes',
        f"forward: no: the shared version 1 refuses {example}, which the shared version 2 takes",
    ]


def test_a_diff_takes_a_file_that_is_not_published_yet(run: Run, db: Db, tmp_path: Path) -> None:
    registry.publish_schema(db, "order.lost", V1)
    (tmp_path / "next.json").write_text(json.dumps(NARROWER))

    for new, stdin in (("next.json", None), ("-", NARROWER)):
        found = json.loads(run("schema", "diff", "order.lost", "latest", new, "--json", stdin=stdin).stdout)
        assert found["differences"] == [
            {
                "pointer": "/total",
                "kind": "narrows",
                "words": "is now required",
                "narrows": True,
                "widens": False,
            }
        ]
        assert found["backward"] == {"answer": "no", "example": '{"id":""}'}
        assert found["forward"] == {"answer": "yes", "example": None}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("order.created 1 2", 1),
        ("order.created 1 latest", 0),
        ("nope latest latest", 1),
        ("order.created x.json 1", 2),
        ("order.created 1 nope.json", 2),
        ("order.created 99999999999 1", 1),
        ("order.created 1 1 --tenant acme", 1),
        ("order.created latest latest --tenant acme", 0),
    ],
)
def test_a_diff_of_what_is_not_there_ends_in_one_line(run: Run, db: Db, words: str, code: int) -> None:
    told = run("schema", "diff", *words.split())

    assert told.exit_code == code, told.output
    if code == 1:
        assert "`processor schema list` shows what there is" in told.stderr


def test_the_promise_is_listed_and_shown(run: Run, db: Db) -> None:
    registry.publish_schema(db, "order.lost", V1, compat="forward")

    [row] = json.loads(run("schema", "list", "--event-type", "order.lost", "--json").stdout)
    assert row["compat"] == "forward"
    assert json.loads(run("schema", "show", "order.lost", "--json").stdout)["compat"] == "forward"
