"""Thousands of clients that keep their connections: a plain start takes them all."""

import asyncio
import json
import resource
from pathlib import Path

import pytest

from processor.devstack.servers.sqs import EmbeddedSqs
from producers.gateway import open_files
from tests.gateway.http.rig import a_pulse, a_request
from tests.gateway.http.test_journey import a_command, without_keys

CLIENTS = 3200
PULSE = json.dumps(a_pulse()).encode()


@pytest.fixture
def files() -> None:
    """As many open files as this test has sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CLIENTS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"only {hard} files may be open here, and it takes {wanted}")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.usefixtures("nothing_is_set", "files")
@pytest.mark.timeout(170)
def test_three_thousand_clients_are_connected_at_once_and_all_are_answered(
    sqs_server: EmbeddedSqs, queue_url: str, tmp_path: Path
) -> None:
    environment = without_keys(sqs_server, queue_url) | {"GATEWAY_TIMEOUT_S": "120"}
    with a_command(tmp_path, environment, open_files_at_first=1024) as command:
        statuses = asyncio.run(_all_at_once(command.port))

    assert statuses == [200] * CLIENTS + [202] * CLIENTS


async def _all_at_once(port: int) -> list[int]:
    at_once = asyncio.Semaphore(200)

    async def connected() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with at_once:
            return await asyncio.open_connection("127.0.0.1", port)

    async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split()[1])

    alive = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"
    clients = [await one for one in asyncio.as_completed([connected() for _ in range(CLIENTS)])]
    # First, and once more: they are all open now, and none of them has been closed since.
    before = await asyncio.gather(*(asked(*client, alive) for client in clients))
    after = await asyncio.gather(*(asked(*client, a_request(PULSE)) for client in clients))
    for _, writer in clients:
        writer.close()
    return [*before, *after]


def test_a_limit_of_files_that_is_too_low_is_told_with_what_to_raise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)

    found = open_files.connections_within(16_000)

    assert found == 1024 - 256
    assert "few_open_files" in (said := capsys.readouterr().out)
    assert "16256" in said
