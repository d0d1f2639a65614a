"""Who sends is known by a key of which only a digest is kept, whether the database answers or not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from processor.check.keys import look_at_keys
from processor.check.roles import missing_rights, wanted_by
from processor.errors import SettingsError
from processor.operations import registry
from processor.settings import Settings
from processor.wire.api_key import new_key, read_key
from processor.wire.sender_rights import EVERYTHING, NEITHER, Rights
from producers.gateway.items import Caller, Refusal, Why
from producers.gateway.keys import STALE_AFTER_S, DatabaseKeys, NoKeys
from producers.gateway.opening import open_keys
from tests.chaos.traffic.tcp_proxy import TcpProxy
from tests.fixtures.database import LogIn, login_of
from tests.gateway.taking import run
from tests.rig import wait_until

Db = psycopg.Connection[Any]

EVERY_S = 0.1


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def keys_of(url: str, clock: Clock | None = None, *, known: bool = True) -> AsyncIterator[DatabaseKeys]:
    keys = DatabaseKeys(url, every_s=EVERY_S, clock=clock or Clock())
    await keys.start()
    try:
        if known:
            await until(lambda: keys._known is not None)
        yield keys
    finally:
        await keys.close()
        assert keys._thread is not None
        await asyncio.to_thread(keys._thread.join, 10)


async def until(condition: Callable[[], bool]) -> None:
    # In a thread, so that what is waited for goes on.
    await asyncio.to_thread(wait_until, condition, "what was read is known", wait_s=20)


async def becomes(keys: DatabaseKeys, authorization: str, expected: Caller | Why) -> None:
    await until(lambda: _word(run(keys.caller(authorization))) == expected)


def _word(found: Caller | Refusal) -> Caller | Why:
    return found.why if isinstance(found, Refusal) else found


def test_a_key_is_its_tenants_with_the_word_bearer_or_without(database_url: str, db: Db) -> None:
    _, acme = registry.add_key(db, "acme")
    _, globex = registry.add_key(db, "globex")

    async def work() -> None:
        async with keys_of(database_url) as keys:
            for text in (f"Bearer {acme}", f"bearer  {acme} ", acme):
                assert await keys.caller(text) == Caller("acme")
            assert await keys.caller(f"Bearer {globex}") == Caller("globex")
            assert await keys.ready() == ""

    run(work())


def test_whatever_is_no_key_is_nobody(database_url: str, db: Db) -> None:
    key_id, key = registry.add_key(db, "acme")
    _, other = registry.add_key(db, "globex")
    stranger, _ = new_key()
    mixed = f"ep_{key_id}_{other.split('_', 2)[2]}"
    others = [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Basic YTpi",
        "x" * 100_000,
        "Bearer é",
        key[:-1],
        key + "A",
        key.upper(),
    ]

    async def work() -> None:
        async with keys_of(database_url) as keys:
            for text in (None, stranger, mixed, f"Basic {key}", f"{key} {key}", *others):
                word = await keys.caller(text)
                assert isinstance(word, Refusal), text
                assert word.why is Why.UNAUTHENTICATED
                assert key not in word.detail

    run(work())


def test_a_change_holds_without_a_restart(database_url: str, db: Db) -> None:
    key_id, key = registry.add_key(db, "acme")

    async def work() -> None:
        async with keys_of(database_url) as keys:
            assert await keys.caller(key) == Caller("acme")

            _, newer = registry.add_key(db, "globex")
            await becomes(keys, newer, Caller("globex"))

            registry.set_tenant_status(db, "acme", "suspended")
            await becomes(keys, key, Why.FORBIDDEN)
            registry.set_tenant_status(db, "acme", "active")
            await becomes(keys, key, Caller("acme"))

            registry.revoke_key(db, key_id)
            await becomes(keys, key, Why.UNAUTHENTICATED)

    run(work())


def test_while_the_database_is_away_what_was_known_holds_and_it_is_said_once(
    database_url: str, db: Db, caplog: pytest.LogCaptureFixture
) -> None:
    key_id, key = registry.add_key(db, "acme")
    parts = urlsplit(database_url)
    proxy = TcpProxy(parts.port or 5432)
    url = parts._replace(netloc=f"{parts.username}:x@127.0.0.1:{proxy.port}").geturl()
    clock = Clock()

    async def work() -> None:
        async with keys_of(url, clock) as keys:
            proxy.refuse()
            # Not the connection alone that was open: nobody is let in any more.
            await until(lambda: "can't be reached" in keys._trouble)
            assert await keys.caller(key) == Caller("acme")
            assert await keys.ready() == ""

            clock.now_s += STALE_AFTER_S + 1
            assert "s ago: the database" in await keys.ready()
            assert await keys.caller(key) == Caller("acme")

            proxy.heal()
            registry.revoke_key(db, key_id)
            await becomes(keys, key, Why.UNAUTHENTICATED)
            await until(lambda: keys._trouble == "")
            assert await keys.ready() == ""

    try:
        with caplog.at_level(logging.INFO, logger="producers.gateway.keys"):
            run(work())
    finally:
        proxy.close()

    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "x@" not in caplog.text


def test_before_the_first_reading_nobody_is_let_in_and_it_is_said(database_url: str) -> None:
    key, _ = new_key()
    nowhere = urlsplit(database_url)._replace(path="/nowhere").geturl()

    async def work() -> None:
        async with keys_of(nowhere, known=False) as keys:
            await until(lambda: keys._trouble != "")
            word = await keys.caller(key)
            assert isinstance(word, Refusal)
            assert word.why is Why.UNAVAILABLE
            assert "have not been read yet: the database refuses us" in await keys.ready()

    run(work())


# ── rights ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_role_of_a_gateway_reads_what_it_judges_by_and_nothing_else(log_in: LogIn, db: Db) -> None:
    _, key = registry.add_key(db, "acme")
    url = log_in("processor_gateway")

    async def work() -> None:
        async with keys_of(url) as keys:
            assert await keys.caller(key) == Caller("acme")

    run(work())

    with psycopg.connect(url, autocommit=True) as gateway:
        assert missing_rights(gateway, wanted_by("processor_gateway")) == []
        for statement in (
            "SELECT FROM message",
            "SELECT FROM rejection",
            "SELECT FROM event_schema",
            "UPDATE meter SET status = 'retired'",
            "UPDATE event_type SET description = ''",
            "UPDATE api_key SET revoked_at = NULL",
            "DELETE FROM api_key",
            "INSERT INTO api_key (key_id, tenant_id, digest) VALUES ('0', 'acme', '')",
            "UPDATE tenant SET status = 'active'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                gateway.execute(statement)


@pytest.mark.parametrize(
    ("group", "words"),
    [("processor_writer", "member of processor_gateway"), ("processor_tenant_reader", "row-level security")],
)
def test_a_login_with_the_wrong_rights_is_told_what_it_needs(group: str, words: str, log_in: LogIn) -> None:
    async def work() -> None:
        async with keys_of(log_in(group), known=False) as keys:
            await until(lambda: keys._trouble != "")
            assert words in await keys.ready()

    run(work())


def test_a_tenants_reader_sees_no_key(log_in: LogIn, db: Db) -> None:
    registry.add_key(db, "acme")
    url = log_in("processor_tenant_reader")
    db.execute("INSERT INTO tenant_reader VALUES (%s, 'acme')", [login_of(url)])

    with psycopg.connect(url) as reader, pytest.raises(psycopg.errors.InsufficientPrivilege):
        reader.execute("SELECT FROM api_key")


# ── the table ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_secret_is_nowhere_in_the_table(db: Db) -> None:
    _, key = registry.add_key(db, "acme", "till 7")

    secret = key.split("_", 2)[2]
    rows = db.execute("SELECT api_key::text, encode(digest, 'base64') FROM api_key").fetchall()
    assert len(secret) == 43
    assert secret not in str(rows)
    kept = read_key(key)
    assert kept is not None
    assert db.execute("SELECT digest FROM api_key").fetchall() == [(kept.digests[1],)]


def test_a_gateway_that_knows_no_rights_knows_no_key_that_has_some(db: Db) -> None:
    _, key = registry.add_key(db, "acme", "", Rights(None, ("till",)))

    # As the release before asks and compares.
    rows = db.execute("SELECT digest FROM api_key WHERE revoked_at IS NULL").fetchall()
    assert [bytes(digest) for (digest,) in rows] != [sha256(key.split("_", 2)[2].encode()).digest()]


@pytest.mark.parametrize(
    "change",
    [
        "tenant_id = 'globex'",
        "digest = sha256('x')",
        "key_id = '0123456789abcdef'",
        "revoked_at = NULL",
        "event_types = '{pulse}'",
        "producers = '{platform}'",
        "may_void = true",
        "may_correct = true",
        "digest_rounds = 1",
    ],
)
def test_a_key_stays_what_it_is_and_revoked(change: str, db: Db) -> None:
    key_id, _ = registry.add_key(db, "acme")
    registry.revoke_key(db, key_id)

    with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="stays what it is"):
        db.execute(f"UPDATE api_key SET {change}")

    db.execute("UPDATE api_key SET name = 'another name'")


def test_keys_with_all_rights_and_one_round_do_what_they_may_and_check_names_them(
    db: Db, database_url: str
) -> None:
    registry.add_tenant(db, "initech")
    key, kept = new_key()
    row = (kept.key_id, sha256(key.split("_", 2)[2].encode()).digest())
    db.execute(
        "INSERT INTO api_key (key_id, tenant_id, digest, may_void, may_correct)"
        " VALUES (%s, 'initech', %s, true, true)",
        row,
    )
    _, newer = registry.add_key(db, "initech")
    finding = look_at_keys(db)

    async def work() -> list[Caller | Refusal]:
        async with keys_of(database_url) as keys:
            return [await keys.caller(one) for one in (key, newer)]

    before, after = run(work())

    assert isinstance(before, Caller)
    assert isinstance(after, Caller)
    assert (before.rights, after.rights) == (EVERYTHING, NEITHER)
    assert f"may void or correct events of any producer that is not reserved: {kept.key_id}" in finding.found
    assert "processor key add TENANT --producer NAME" in (finding.advice or "")


def test_check_has_no_word_on_keys_of_their_own_producers(db: Db) -> None:
    registry.add_key(db, "acme", "", Rights(None, ("till",)))
    ended, _ = registry.add_key(db, "acme")
    registry.revoke_key(db, ended)

    finding = look_at_keys(db)

    assert (finding.found, finding.advice) == ("in force: 1", None)


# ── who needs none ────────────────────────────────────────────────────────────────────────────────────


def test_with_keys_off_anybody_may_be_any_tenant(settings: Settings) -> None:
    keys = open_keys(settings.model_copy(update={"gateway_keys": "off", "database_url": None}))

    assert isinstance(keys, NoKeys)
    assert run(keys.caller(None)) == Caller(None, rights=EVERYTHING)
    assert run(keys.ready()) == ""


def test_keys_are_required_unless_they_are_said_to_be_off(settings: Settings) -> None:
    assert isinstance(open_keys(settings), DatabaseKeys)
    with pytest.raises(SettingsError, match="DATABASE_URL"):
        open_keys(settings.model_copy(update={"database_url": None}))
