"""The guide of `processor dev`: commands to copy and paste, and the effect of a kill."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from processor.devstack.servers.sqs import EmbeddedSqs
from processor.devstack.stack import BAD_SHARES, Stack, program, shell_path

AWSLOCAL_PORT = 4566


def guide(stack: Stack, http_port: int, env_file: Path) -> Iterator[str]:
    """Yield the lines; each command works from the current directory."""
    body = '{"id": "hello-1", "tenant_id": "acme", "event_type": "order.created", "payload": {}}'
    send = f"{_awslocal(stack.sqs)} sqs send-message --queue-url {stack.queue_url} --message-body"
    processor, psql = program("processor"), shell_path(stack.postgres.psql)
    database = shlex.quote(stack.database_url)
    yield ""
    yield f"Ready. PostgreSQL: {stack.database_url}"
    yield f"       SQS:        {stack.queue_url}" + (
        "" if stack.sqs.port == AWSLOCAL_PORT else f"  (port {AWSLOCAL_PORT} is taken by another program)"
    )
    yield f"       processor:  http://127.0.0.1:{http_port}/readyz and /metrics, log in {_log(stack)}"
    yield ""
    yield "In another terminal, from this directory:"
    yield ""
    yield "  # put something bad on the queue, and something that lacks its fields"
    yield f'  {send} "Hello World"'
    yield f"  {send} {shlex.quote(body)}"
    yield "  # look at the rows"
    yield f'  {psql} {database} -c "SELECT rejection_id, reason, detail FROM rejection"'  # noqa: S608 - shown
    yield "  # for the commands below: where the servers are"
    yield f"  set -a; . {_sourced(env_file)}; set +a"
    yield f"  {program('producers')} fake --events 500 {' '.join(BAD_SHARES)}"
    yield f"  {processor} rejection list"
    yield f"  {processor} trace hello-1"
    yield f"  {processor} audit"
    yield ""
    yield "Ctrl-C stops everything and keeps everything: rows and queued messages are back at the next start"
    yield f"(`{processor} dev --fresh` starts over)."
    if sys.platform == "linux":
        yield "`kill -9` of this command costs nothing either: the servers notice it, save and stop, and what"
        yield "the processor had in hand comes back within a minute."
    else:
        yield "`kill -9` of this command leaves the servers running; stop them by hand before the next start."
    yield f"`kill -9` of the SQS server (pid {stack.sqs.pid}), or a power cut, costs the messages queued"
    yield "since this start; those queued at the last clean stop come back, and what was stored is known."
    yield f"`kill -9` of PostgreSQL (pid {stack.postgres.pid}) costs no row: what is committed stays."


def _awslocal(sqs: EmbeddedSqs) -> str:
    awslocal = program("awslocal")
    return awslocal if sqs.port == AWSLOCAL_PORT else f"AWS_ENDPOINT_URL={sqs.endpoint_url} {awslocal}"


def _log(stack: Stack) -> str:
    return shell_path(stack.directory / "processor.log")


def _sourced(path: Path) -> str:
    """Format a path for `.`; without a slash, a shell would search its PATH."""
    text = shell_path(path)
    return text if "/" in text else f"./{text}"
