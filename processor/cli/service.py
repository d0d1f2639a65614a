"""processor migrate, processor check and processor run."""

import signal
import threading
from pathlib import Path
from types import FrameType
from uuid import uuid4

import click

from processor.brokers.source_url import with_password_of
from processor.check import summed_up
from processor.check.exposure import require_unguessable
from processor.cli.errors import Exit, exit_code_of
from processor.cli.output import json_option, print_json, print_table
from processor.cli.paths import NamedPath
from processor.database import migrations
from processor.errors import SettingsError
from processor.runtime import logs
from processor.runtime.supervisor import die_of
from processor.runtime.terminal import say
from processor.settings import DatabaseSettings, RunSettings, Settings
from processor.usage.counter import CountSelection, RunNotes
from processor.wiring import commands, database, service
from processor.wiring.counting import CountsOfRun


@click.command()
def migrate() -> None:
    """Migrate the database of DATABASE_URL to this version's schema.

    Run it as the owner of the database, before every upgrade. It is idempotent, and safe beside another
    migrate.
    """
    with database(DatabaseSettings.load()) as connection:
        done = migrations.migrate(connection, lambda words: say(f"note: {words}"))
    for name in done:
        say(f"applied {name}")
    say("the database is up to date" if not done else f"{len(done)} migration(s) applied")


@click.command()
@json_option
def check(as_json: bool) -> None:
    """Check the deployment for problems and risks: database, queue, dead-letter queue, clocks.

    A note (`note`) works but has a risk; a problem (`!!`) must be fixed. Exit code 3 if there is a problem,
    4 if the database or the queue can't be reached.
    """
    findings = commands.run_check(Settings.load())
    if as_json:
        print_json([finding.as_dict() for finding in findings])
    else:
        print_table(
            ["", "what", "found", "what to do"],
            [(f.mark, f.what, f.found, f.advice or "") for f in findings],
        )
        say(summed_up(findings))
    raise SystemExit(
        Exit.UNREACHABLE
        if any(finding.unreachable for finding in findings)
        else Exit.FINE
        if all(finding.fine for finding in findings)
        else Exit.PROBLEM_FOUND
    )


@click.command()
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True, help="The number of processes."
)
@click.option(
    "--until-idle",
    type=click.FloatRange(min=0.1, max=86_400),
    metavar="SECONDS",
    help="End after the queue has been empty for this time, with nothing visible or in flight. "
    "Without it, run until stopped.",
)
@click.option(
    "--source",
    "source_url",
    metavar="URL",
    help="The broker to consume from, instead of SOURCE_URL, without a password: the password of SOURCE_URL "
    "is used if both name the same broker (and user).",
)
@click.option(
    "--count-to",
    metavar="DIR",
    type=NamedPath(path_type=Path),
    help="At the end, write the message count of each user to files in DIR, like processor count.",
)
@click.option(
    "--tenant",
    "tenant_id",
    help="Count only this tenant's messages; without it, the messages of all tenants.",
)
@click.option("--this-run", is_flag=True, help="Count only the messages stored by this run.")
@click.option(
    "--log-events",
    is_flag=True,
    help="Log one line per outcome at level INFO: ids and reason, never a payload.",
)
def run(
    *,
    processes: int,
    until_idle: float | None,
    source_url: str | None,
    count_to: Path | None,
    tenant_id: str | None,
    this_run: bool,
    log_events: bool,
) -> None:
    """Run the event processor from SQS_QUEUE_URL or SOURCE_URL to DATABASE_URL until SIGTERM or Ctrl-C.

    A stop finishes the messages in flight and may take up to STOP_TIMEOUT_S; a second stop ends at once and
    leaves them to the queue. Outages of queue and database are retried; a stop during an outage, or with
    work left, has exit code 4 and prints the rest. /livez, /readyz and /metrics are on HTTP_PORT.

    With --count-to the files have the committed counts at the end of the run, by idleness or by a stop, and
    are written only at exit code 0. With --this-run each transaction records its messages, so redeliveries
    and other runs don't count; a run that ends without files names the command that writes them later.
    """
    if count_to is None and (tenant_id is not None or this_run):
        raise click.UsageError("--tenant and --this-run say what --count-to counts; add --count-to DIR")
    settings = _settings(source_url)
    logs.configure(settings.log_format, settings.log_level)
    stops = service.Stops(gently=threading.Event(), now=threading.Event())
    _obey_signals(stops)
    settings.need_database_url()
    settings.need_source()
    require_unguessable(settings)
    counts, extra = None, service.RunOptions(log_events=log_events)
    if count_to is not None:
        selection = CountSelection(tenant_id, run_id=uuid4().hex if this_run else None)
        counts = CountsOfRun(settings, count_to, selection, stops.gently)
        additions = () if selection.run_id is None else (RunNotes(selection.run_id),)
        extra = service.RunOptions(counts.prepare, additions, log_events)
    code = service.run_supervised(settings, stops, processes, until_idle, extra, exit_code_of)
    if code < 0:
        die_of(-code)
    # Files written during an outage would look complete.
    if code == Exit.FINE and counts is not None:
        counts.write()
    raise SystemExit(code)


def _settings(source_url: str | None) -> RunSettings:
    """Load the settings; --source overrides SOURCE_URL, and must not contain a password."""
    if source_url is None:
        return RunSettings.load()
    address = RunSettings.load(source_url=source_url).source_address()
    if address is not None and address.password is not None:
        raise SettingsError(
            "--source has a password in it, which other users of this machine can read; "
            "set SOURCE_URL in the environment or in .env instead"
        )
    kept = RunSettings.load().source_url
    if kept is not None:
        source_url = with_password_of(source_url, kept.get_secret_value())
    return RunSettings.load(source_url=source_url)


def _obey_signals(stops: service.Stops) -> None:
    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - as the signal module calls
        if stops.gently.is_set():
            stops.now.set()
        stops.gently.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


COMMANDS = [migrate, check, run]
