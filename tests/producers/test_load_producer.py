"""`producers load` against servers that stall, refuse and vanish: every pulse is counted once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from processor.errors import SettingsError, SourceUnavailable
from processor.wire.manifest import ManifestWriter, payload_digest, read_manifest
from producers.cli import main
from producers.load.client import Target
from producers.load.pulses import PAUSE_S_MAX, PAUSE_S_MIN, LoadPlan, LoadPulse, pulse, timetable
from producers.load.report import Delays, LoadTally, draw
from producers.load.run import Load, LoadOptions

ACCEPTED = b'{"message_id":"m","delivery_id":"d-1","tenant_id":"t","made_id":false}'
NO_TRY_MORE = LoadOptions(connections=8, timeout_s=5)

Answering = Callable[["Server", asyncio.StreamWriter, str], Awaitable[None]]


def an_answer(status: int = 202, body: bytes = ACCEPTED, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Server:
    """Reads requests one after the other on each connection; `answering` says what becomes of each."""

    def __init__(self, answering: Answering) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.seen: Counter[str] = Counter()
        self._answering = answering

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                fields = (line.split(": ", 1) for line in head[1:] if line)
                headers = {name.lower(): value for name, value in fields}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((head[0], headers, body))
                key = headers["idempotency-key"] + json.loads(body)["tenant_id"]
                self.seen[key] += 1
                await self._answering(self, writer, key)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def end(self) -> None:
        """Leave no connection open."""
        for writer in self.writers:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def say_yes(_server: Server, writer: asyncio.StreamWriter, _key: str) -> None:
    writer.write(an_answer())


def always(answer: bytes) -> Answering:
    async def answering(_server: Server, writer: asyncio.StreamWriter, _key: str) -> None:
        writer.write(answer)

    return answering


def loaded(
    answering: Answering,
    plan: LoadPlan,
    effort: LoadOptions = NO_TRY_MORE,
    manifest: ManifestWriter | None = None,
    key: str | None = None,
) -> tuple[LoadTally, Server]:
    """Load a server of our own; gives what the producer counted, and the server with what it saw."""
    server = Server(answering)

    async def both() -> LoadTally:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        load = Load(Target.of(f"http://127.0.0.1:{port}", "/ingest", key), plan, effort, manifest)
        async with asyncio.timeout(30):
            await load.run()
        listening.close()
        await server.end()
        return load.tally

    return asyncio.run(both()), server


def a_plan(duration_s: float = 0.4, rate_per_s: float | None = 100.0, **changes: Any) -> LoadPlan:
    return LoadPlan(duration_s, seed=7, rate_per_s=rate_per_s, **({"tenants": 20} | changes))


def a_pulse(number: int = 0, tenant: int = 0, seed: int = 7) -> LoadPulse:
    return pulse(LoadPlan(1, seed), 0.0, tenant, number)


# ── pulses and timetables ─────────────────────────────────────────────────────────────────────────────


def test_a_pulse_is_the_one_that_platforms_send_and_its_digest_is_right() -> None:
    for number in range(300):
        made = a_pulse(number, tenant=number % 7)

        said = json.loads(made.body)
        assert set(said) == {"tenant_id", "product_sku", "used_amount", "use_unity"}
        assert said["tenant_id"] == made.tenant_id
        assert made.digest() == payload_digest(made.body)


def test_the_same_seed_sends_the_same_pulses_and_another_seed_shares_no_id() -> None:
    def all_of(seed: int) -> set[tuple[str, str, bytes]]:
        made = [a_pulse(number, tenant, seed) for number in range(20) for tenant in range(20)]
        return {(one.tenant_id, one.message_id, one.body) for one in made}

    assert all_of(1) == all_of(1)
    assert len(all_of(1)) == 400
    assert not {ids[:2] for ids in all_of(1)} & {ids[:2] for ids in all_of(2)}


def test_all_skus_come_and_no_others() -> None:
    skus = {json.loads(a_pulse(number).body)["product_sku"] for number in range(500)}

    assert skus == {f"sku-{number}" for number in range(1, 11)}


def test_a_tenants_next_pulse_is_due_after_its_pause_and_only_once_the_last_is_done() -> None:
    times = timetable(LoadPlan(60, seed=1, tenants=1))
    first = times.take()

    waiting = times.next_s()
    times.done(first)

    assert waiting is None, "no second pulse before the first one's answer"
    due_s = times.next_s()
    assert due_s is not None
    assert PAUSE_S_MIN <= due_s - first.due_s <= PAUSE_S_MAX


def test_a_constant_rate_is_due_evenly_whatever_becomes_of_it() -> None:
    times, due = timetable(LoadPlan(1, seed=1, tenants=3, rate_per_s=4)), []

    while times.next_s() is not None:
        due.append(times.take())

    assert [one.due_s for one in due] == [0, 0.25, 0.5, 0.75]
    assert [one.tenant_id for one in due] == ["tenant-0001", "tenant-0002", "tenant-0003", "tenant-0001"]


# ── what is sent ──────────────────────────────────────────────────────────────────────────────────────


def test_every_pulse_is_a_post_of_its_own_under_its_id() -> None:
    tally, server = loaded(say_yes, a_plan(), key="ep_secret")

    assert tally.sent == tally.accepted == len(server.requests) == 40
    assert set(server.seen.values()) == {1}
    line, headers, _ = server.requests[0]
    assert line == "POST /ingest HTTP/1.1"
    assert headers["authorization"] == "Bearer ep_secret"
    assert headers["content-type"] == "application/json"


def test_connections_are_kept_and_bounded() -> None:
    async def slow(_server: Server, writer: asyncio.StreamWriter, _key: str) -> None:
        await asyncio.sleep(0.05)
        writer.write(an_answer())

    tally, server = loaded(slow, a_plan(rate_per_s=200), LoadOptions(connections=3, timeout_s=5))

    assert tally.accepted == 80
    assert server.connections <= 3


def test_a_stall_counts_for_everybody_who_waited_behind_it() -> None:
    """One connection, 20 pulses due every 20 ms, the first answer after 0.3 s: most are late by far."""

    async def stalling(server: Server, writer: asyncio.StreamWriter, _key: str) -> None:
        if len(server.requests) == 1:
            await asyncio.sleep(0.3)
        writer.write(an_answer())

    tally, _ = loaded(stalling, a_plan(rate_per_s=50), LoadOptions(connections=1, timeout_s=5))

    assert tally.accepted == 20
    # Counted from the moment of writing, all but one would have taken a millisecond.
    assert tally.delays.percentile_s(50) > 0.08
    assert tally.delays.max_s > 0.29


def test_a_closed_loop_sends_no_faster_than_its_tenants() -> None:
    tally, server = loaded(say_yes, a_plan(duration_s=1.2, rate_per_s=None))

    by_tenant = Counter(json.loads(body)["tenant_id"] for _, _, body in server.requests)
    assert len(by_tenant) == 20
    assert max(by_tenant.values()) <= 3
    assert tally.accepted == by_tenant.total()


def test_the_manifest_knows_each_pulse_before_and_the_accepted_ones_after(tmp_path: Path) -> None:
    async def every_second(server: Server, writer: asyncio.StreamWriter, _key: str) -> None:
        writer.write(an_answer() if len(server.requests) % 2 else an_answer(422, b'{"code":"invalid"}'))

    path = tmp_path / "manifest.jsonl"
    with ManifestWriter(path) as manifest:
        tally, _ = loaded(every_second, a_plan(), manifest=manifest)

    lines = list(read_manifest(path))
    states = Counter(line.state for line in lines)
    assert states == {"intended": tally.sent, "accepted": tally.accepted}
    assert {line.delivery_id for line in lines if line.state == "accepted"} == {"d-1"}
    keys = {(line.tenant_id, line.message_id, line.digest) for line in lines if line.state == "intended"}
    assert len(keys) == tally.sent


# ── what goes wrong ───────────────────────────────────────────────────────────────────────────────────


def test_refusals_are_counted_by_status_and_word() -> None:
    tally, _ = loaded(always(an_answer(429, b'{"code":"over_quota"}', "Retry-After: 1")), a_plan())

    assert (tally.accepted, tally.refused) == (0, 40)
    assert tally.refusals == {"429 over_quota": 40}
    assert not tally.retries, "nothing is sent again unasked"


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 202 OK\r\nContent-Length: 100\r\n\r\nhalf"]
)
def test_a_connection_that_ends_early_is_no_answer(answer: bytes) -> None:
    async def hang_up(_server: Server, writer: asyncio.StreamWriter, _key: str) -> None:
        writer.write(answer)
        writer.close()

    tally, _ = loaded(hang_up, a_plan())

    assert (tally.sent, tally.accepted, tally.failed) == (40, 0, 40)
    assert tally.failures.total() == 40


def test_silence_ends_at_the_timeout_and_what_could_not_be_sent_is_said() -> None:
    async def silent(_server: Server, _writer: asyncio.StreamWriter, _key: str) -> None:
        pass

    tally, _ = loaded(silent, a_plan(), LoadOptions(connections=2, timeout_s=0.15))

    assert tally.accepted == 0
    assert set(tally.failures) <= {"timeout", "no answer until the end"}
    assert tally.failures["timeout"] > 0
    assert tally.unsent > 0
    assert tally.sent + tally.unsent == 40


def test_an_interim_answer_is_not_the_answer() -> None:
    tally, _ = loaded(always(b"HTTP/1.1 103 Early Hints\r\n\r\n" + an_answer()), a_plan())

    assert tally.accepted == 40


def test_a_server_that_closes_after_each_answer_is_loaded_all_the_same() -> None:
    async def closing(_server: Server, writer: asyncio.StreamWriter, _key: str) -> None:
        # Who is told so has to close it; this server answers on.
        writer.write(an_answer(202, ACCEPTED, "Connection: close"))

    tally, server = loaded(closing, a_plan())

    assert tally.accepted == 40
    assert server.connections >= 40


def test_a_retry_has_the_same_id_and_is_told() -> None:
    async def first_no(server: Server, writer: asyncio.StreamWriter, key: str) -> None:
        first = server.seen[key] == 1
        writer.write(an_answer(503, b'{"code":"unavailable"}') if first else an_answer())

    tally, server = loaded(first_no, a_plan(), LoadOptions(connections=8, timeout_s=5, retries=2))

    assert (tally.sent, tally.accepted, tally.refused) == (40, 40, 0)
    assert set(server.seen.values()) == {2}
    assert tally.retries == {"503 unavailable": 40}
    assert tally.delays.percentile_s(50) > 0.2, "the pause before the retry counts too"


def test_what_blames_the_pulse_is_not_sent_again() -> None:
    tally, server = loaded(
        always(an_answer(422, b'{"code":"invalid"}')),
        a_plan(),
        LoadOptions(connections=8, timeout_s=5, retries=2),
    )

    assert (tally.refused, len(server.requests)) == (40, 40)


def test_where_nobody_listens_nothing_is_sent() -> None:
    load = Load(Target.of("http://127.0.0.1:1", "/ingest", None), a_plan(), NO_TRY_MORE)

    with pytest.raises(SourceUnavailable, match="can't be reached"):
        asyncio.run(load.run())

    assert load.tally.sent == 0


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("h", "/x"),
        ("ftp://h", "/x"),
        ("http://u:secret@h", "/x"),
        ("http://h", "x y"),
        ("http://[", "/x"),
        ("http://h?q", "/x"),
    ],
)
def test_what_is_no_target_is_refused_without_being_quoted(url: str, path: str) -> None:
    with pytest.raises(SettingsError) as told:
        Target.of(url, path, None)

    assert "secret" not in str(told.value)


# ── the report ────────────────────────────────────────────────────────────────────────────────────────


def test_percentiles_are_half_a_percent_off_at_most_and_the_greatest_is_exact() -> None:
    delays = Delays()
    for number in range(1, 1001):
        delays.add(number / 1000)

    for percent in (50, 95, 99, 99.9):
        assert percent / 100 <= delays.percentile_s(percent) <= percent / 100 * 1.0051
    assert delays.percentile_s(100) == delays.max_s == 1.0


def test_no_delays_have_no_percentiles_and_great_ones_are_kept() -> None:
    nothing, great = Delays(), Delays()
    great.add(10_000_000.0)
    great.add(0.0)

    assert nothing.percentile_s(99) == 0
    assert (great.count, great.percentile_s(100)) == (2, 10_000_000.0)


@contextmanager
def a_server(answer: bytes, folder: Path) -> Iterator[str]:
    """A server in a process of its own, for the command; gives its URL."""
    program = (
        "import asyncio, sys\n"
        "async def serve(reader, writer):\n"
        "    while head := (await reader.readuntil(b'\\r\\n\\r\\n')).lower():\n"
        "        await reader.readexactly(int(head.split(b'content-length: ')[1].split()[0]))\n"
        f"        writer.write({answer!r})\n"
        "async def main():\n"
        "    server = await asyncio.start_server(serve, '127.0.0.1', 0)\n"
        "    print(server.sockets[0].getsockname()[1], flush=True)\n"
        "    await server.serve_forever()\n"
        "asyncio.run(main())\n"
    )
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=log)
    assert server.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def test_the_command_says_what_it_did_and_draws_nothing_unasked(tmp_path: Path) -> None:
    with a_server(an_answer(), tmp_path) as url:
        done = CliRunner().invoke(
            main, ["load", "--url", url, "--duration", "0.3", "--rate", "100", "--json"]
        )

    said = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (said["sent"], said["accepted"], said["refusals"]) == (30, 30, {})
    assert set(said["delay_ms"]) == {"p50", "p95", "p99", "p99.9", "max"}


def test_refusals_end_the_command_by_1_and_no_server_by_4(tmp_path: Path) -> None:
    with a_server(an_answer(403, b'{"code":"forbidden"}'), tmp_path) as url:
        refused = CliRunner().invoke(main, ["load", "--url", url, "--duration", "0.2", "--rate", "50"])
    away = CliRunner().invoke(main, ["load", "--url", "http://127.0.0.1:1"])

    assert refused.exit_code == 1
    assert "refused 10 x 403 forbidden" in refused.output
    assert away.exit_code == 4


def test_ctrl_c_ends_it_with_its_report(tmp_path: Path) -> None:
    with a_server(an_answer(), tmp_path) as url:
        words = ["load", "--url", url, "--duration", "600", "--tenants", "50", "--json"]
        manifest = tmp_path / "manifest.jsonl"
        load = subprocess.Popen(
            [sys.executable, "-m", "producers", *words, "--manifest", str(manifest)],
            stdout=subprocess.PIPE,
            env=os.environ,
        )
        while not (manifest.exists() and manifest.stat().st_size):
            assert load.poll() is None
        load.send_signal(signal.SIGINT)
        out, _ = load.communicate(timeout=30)

    said = json.loads(out)
    assert load.returncode == 130
    assert said["interrupted"]
    assert said["sent"] == said["accepted"] > 0


def test_a_plot_without_matplotlib_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(SettingsError, match=r"sqs-event-processor\[load\]"):
        draw(LoadTally(), tmp_path / "plot.svg")


def test_a_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    tally = LoadTally()
    for number in range(100):
        tally.accept(number / 50, number / 50 + 0.01)
    tally.refuse("429", 1.0, 1.5)

    draw(tally, tmp_path / "plot.svg")
    with pytest.raises(SettingsError, match=r"\.svg or \.png"):
        draw(tally, tmp_path / "plot.nothing")

    assert b"<svg" in (tmp_path / "plot.svg").read_bytes()[:1000]
