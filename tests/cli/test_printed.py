"""Whatever text the tables hold, no terminal obeys what a command prints, and JSON keeps its value."""

import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from processor.cli import cli
from processor.operations import registry
from processor.runtime.escaping import escaped, json_escaped, printable
from producers.gateway.grpc.items import status_words
from producers.gateway.http.problems import problem_of
from producers.gateway.items import Refusal, Why
from tests.builders import a_body, a_delivery
from tests.fixtures.database import Saver
from tests.fixtures.usage import Command, a_pulse

Db = psycopg.Connection[Any]

CONTROLS = "".join(map(chr, (*range(1, 32), *range(0x7F, 0xA0)))) + "\x1b[2J\x1b]0;owned\x07"
HIDDEN = (
    "\u00ad\u061c\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\ufeff\ufff9"
    "\u2800\u3164\ufe0f\U000e0100\u00a0\u3000\ue000\uffff\U000e0001\U000e0041\U000f0000\U0010ffff\\x1b\\u202e\\"
)
ID = f"id{HIDDEN}"

IGNORABLE = """
    00AD 034F 061C 115F..1160 17B4..17B5 180B..180F 200B..200F 202A..202E 2060..206F 3164 FE00..FE0F FEFF FFA0
    FFF0..FFF8 1BCA0..1BCA3 1D173..1D17A E0000..E0FFF 2800 16FE4 1D159
"""
"""Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt, and three that are drawn blank."""
UNSEEN = {
    chr(code)
    for ends in (each.split("..") for each in IGNORABLE.split())
    for code in range(int(ends[0], 16), int(ends[-1], 16) + 1)
}

ASKED = [
    "check",
    "tenant list",
    "schema list",
    "schema show {id}",
    "schema lint {schema}",
    "schema diff {id} 1 {schema}",
    "schema test {id} {schema}",
    "schema infer {id} --from stored",
    "queue list",
    "queue show {id}",
    "key list",
    "meter list",
    "meter show pulse",
    "rejection rule list",
    "rejection list",
    "rejection show 1",
    "rejection show 2",
    "rejection show 3",
    "rejection stats",
    "rejection replay --all --dry-run",
    "trace {id}",
    "audit",
    "audit --manifest {manifest}",
    "retention plan --message-days 40",
    "usage query",
    "usage query --by day",
    "usage voids",
    "usage verify",
    "usage rebuild --meter pulse --dry-run",
    "usage close",
    "usage reconcile {lines} --dry-run",
    "dispatch --once --to -",
    "settings",
]
QUIET = {
    "demo, dev, run, migrate, count, counter setup": "print no text of the tables, or run on: see Output",
    "tenant add, tenant suspend, tenant resume, schema publish, key add, key revoke": "print what was typed",
    "queue set, queue remove": "print what was typed, by the same function",
    "meter add, meter text-amounts, meter retire, rejection rule add, rejection rule remove": "the same",
    "rejection discard, retention apply, usage reopen": "print counts",
    "dlq list, dlq import": "need a queue; print by the same function",
}


@pytest.fixture
def _filled(db: Db, saver: Saver, pulses: None) -> None:
    registry.add_tenant(db, ID, HIDDEN)
    registry.publish_schema(db, ID, {"type": "object", "properties": {ID: {"maximum": 1}}, "title": CONTROLS})
    registry.add_key(db, "acme", HIDDEN)
    db.execute("INSERT INTO queue (queue, tenants, event_type) VALUES (%s, %s, %s)", (ID, [ID], ID))
    db.execute(
        "INSERT INTO rejection_rule (reason, tenant_id, conditions) VALUES ('not_json', %s, %s::jsonb)",
        (ID, json.dumps({f"/{ID}": CONTROLS})),
    )
    saver.store.load_registry()
    odd = CONTROLS + HIDDEN
    event: dict[str, Any] = {"id": ID, "tenant_id": ID, "event_type": ID, "producer": ID}
    saver.outcomes(
        a_delivery(b'{"a": "' + odd.encode() + b"\xff\x9b", attributes={odd: odd, "b": odd.encode()}),
        a_delivery(**event, delivery_id=odd, queue=odd, payload={ID: 2, odd: odd}),
        a_delivery(a_body(tenant_id=odd, id=odd, event_type=odd, producer=odd), sender_id=odd),
        a_delivery(**event, queue=odd, payload={odd: odd}, attributes={odd: odd}),
        a_delivery(**event, queue=odd, delivery_id="again", payload={odd: odd}),
        a_pulse("1.5", odd, ID, message_id=ID),
        a_pulse(2, "disk", odd, message_id=ID + "2"),
        a_delivery(
            id=ID + "3", tenant_id="acme", event_type="void", payload={"message_id": ID, "producer": odd}
        ),
    )
    db.execute("UPDATE total SET value = value + 1")


@pytest.fixture
def asked(tmp_path: Any) -> list[list[str]]:
    manifest, lines = tmp_path / "manifest.jsonl", tmp_path / "lines.jsonl"
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({CONTROLS: HIDDEN, "required": [ID], "properties": {ID: {"maximum": 0}}}))
    manifest.write_text(
        json.dumps({"state": "intended", "tenant_id": ID, "message_id": CONTROLS, "payload_sha256": "0" * 64})
        + "\n"
    )
    lines.write_text(json.dumps({"key": CONTROLS, "tenant_id": ID, "used_amount": "1"}) + "\n")
    given_words = {
        "id": shlex.quote(ID),
        "manifest": shlex.quote(str(manifest)),
        "lines": shlex.quote(str(lines)),
        "schema": shlex.quote(str(schema)),
    }
    return [shlex.split(words.format(**given_words)) for words in ASKED]


def _is_seen(character: str) -> bool:
    return character.isprintable() and character not in UNSEEN


def assert_plain(text: str) -> None:
    found = {each for each in text if not _is_seen(each) and each != "\n"}
    assert found == set(), ascii(text)[:2000]


def _takes_json(words: list[str]) -> bool:
    command: click.Command = cli
    for word in words:
        if isinstance(command, click.Group):
            command = command.commands[word]
    return any(option.name == "as_json" for option in command.params)


@pytest.mark.usefixtures("_filled")
@pytest.mark.parametrize("columns", ["10000", "40", "a pipe"])
def test_no_command_prints_what_a_terminal_obeys(
    processor: Command, asked: list[list[str]], columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if columns != "a pipe":
        monkeypatch.setattr("processor.runtime.terminal.is_watched", lambda: True)
    seen = ""

    for words in asked:
        for more in ([], ["--json"] if _takes_json(words) else []):
            answer = processor(*words, *more, COLUMNS=columns if columns.isdigit() else "")
            assert_plain(answer.out.replace("\t", ""))
            assert_plain(answer.error)
            assert "Traceback" not in answer.error
            seen += answer.out
            if more and answer.out and answer.out[0] in "[{":
                assert json.loads(answer.out) is not None

    # Else nothing of it was printed, and nothing is proved.
    assert {"\\x9b", "\\u202e", "\\u3164", "\\U000e0100", "\\U000e0041", "\\\\x1b", "\\u009b"} <= set(
        re.findall(r"\\+(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})", seen)
    )


def test_every_command_is_asked_or_said_to_be_quiet() -> None:
    def names(group: click.Command, words: str = "") -> Iterator[str]:
        if isinstance(group, click.Group):
            for name, command in group.commands.items():
                yield from names(command, f"{words} {name}".strip())
        else:
            yield words

    quiet = {name for names_of in QUIET for name in names_of.split(", ")}
    assert quiet == {name for name in names(cli) if not any(words.startswith(name) for words in ASKED)}


@pytest.mark.usefixtures("_filled")
def test_json_has_the_very_value(processor: Command, db: Db) -> None:
    row = db.execute(
        "SELECT tenant_id, queue, detail, attributes FROM rejection WHERE rejection_id = 1"
    ).fetchone()
    assert row is not None

    said = processor("rejection", "show", 1, "--json").json

    assert (said["tenant_id"], said["queue"], said["detail"], said["attributes"]) == row
    assert [
        each["name"] for each in processor("tenant", "list", "--json").json if each["tenant_id"] == ID
    ] == [HIDDEN]


@given(text=st.text() | st.text(alphabet="\\xuU0123456789abf\x1b\x9b\u202e\n") | st.text(CONTROLS + HIDDEN))
@example(text="".join(UNSEEN) + "\\" + "".join(f"\\U{ord(each):08x}" for each in UNSEEN))
def test_an_escaped_text_can_be_read_back(text: str) -> None:
    for written, keep in ((escaped(text), ""), (printable(text), "\n\t")):
        assert all(_is_seen(each) or each in keep for each in written)
        assert _read_back(written) == text
    document = json.dumps({"a": text, text: "b"}, ensure_ascii=False)
    assert json.loads(json_escaped(document)) == json.loads(document)
    assert all(map(_is_seen, json_escaped(document)))


def _read_back(written: str) -> str:
    """Undo it by its rule: before an escape, or what reads as one, backslashes count double."""

    def one(found: re.Match[str]) -> str:
        slashes, digits = len(found[1]), found[2]
        shown = chr(int(digits[1:], 16))
        if _is_seen(shown):
            return found[0]
        return "\\" * (slashes // 2) + (shown if slashes % 2 else digits)

    return re.sub(r"(\\+)(x[0-9a-f]{2}|u[0-9a-f]{4}|U00(?:0[0-9a-f]|10)[0-9a-f]{4})", one, written)


CRASHING = """
import logging, sys
import click
from processor.runtime.start import run
@click.command()
def crash():
    text = {text!r}
    print(text)
    click.echo(text, err=True)
    sys.stderr.write(text)
    logging.getLogger("theirs").error(text)
    print("\\x1b[1mbold\\x1b[0m")
    raise RuntimeError(text)
run(crash, "crash")
"""


def test_the_streams_take_nothing_raw_whoever_writes() -> None:
    code = CRASHING.format(text=CONTROLS + HIDDEN)

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)

    assert done.returncode == 1
    assert "RuntimeError" in done.stderr
    for text in (done.stdout, done.stderr):
        assert_plain(text.replace("\t", ""))
        assert "\\x9b" in text


def test_a_screen_gets_our_colours_and_nothing_else() -> None:
    ours, theirs = pty.openpty()
    code = CRASHING.format(text=CONTROLS.replace("\x1b[2J", "") + HIDDEN)

    subprocess.run([sys.executable, "-c", code], stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    seen = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:
            break
        seen += piece
    os.close(ours)

    text = seen.decode()
    assert "\x1b[1mbold\x1b[0m" in text
    assert_plain(re.sub(r"\x1b\[[01]m", "", text).replace("\r", "").replace("\t", ""))


def test_what_a_gateway_refuses_is_said_without_what_a_terminal_obeys() -> None:
    odd = CONTROLS + HIDDEN
    refusal = Refusal(Why.INVALID, odd, errors=({"pointer": odd, "rule": "x", "message": odd},))

    body = problem_of(refusal).as_response()[2].decode()

    assert_plain(body)
    assert json.loads(body)["errors"][0]["pointer"] == odd
    assert_plain(status_words(refusal))


def test_the_commands_of_the_core_are_listed_before_those_of_what_hangs_on_it() -> None:
    listed = CliRunner().invoke(cli, ["--help"], prog_name="processor").stdout.partition("Options:")[2]

    sections = re.findall(r"^([A-Z][A-Za-z-]+):\n((?:  .*\n)+)", listed, re.MULTILINE)
    commands = {title: re.findall(r"^  ([a-z]+) ", lines, re.MULTILINE) for title, lines in sections}

    assert list(commands) == ["Core", "Usage", "Hand-over", "Gateway", "Development"]
    assert {"migrate", "run", "tenant", "schema", "rejection", "audit"} <= set(commands["Core"])
    assert commands["Hand-over"] == ["dispatch"]
    assert sorted(name for names in commands.values() for name in names) == sorted(cli.commands)
