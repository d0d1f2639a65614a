"""processor dispatch: hand usage over to the sink."""

import threading
from pathlib import Path

import click

from processor.check.exposure import password_trouble
from processor.cli.errors import Exit
from processor.cli.output import json_option, print_json
from processor.cli.signals import stop_at_signals
from processor.errors import SettingsError
from processor.handover.batches import Waiting
from processor.handover.dispatcher import DispatchCounts
from processor.runtime import logs
from processor.runtime.terminal import say
from processor.runtime.thread_deaths import exit_on_thread_death
from processor.settings import DispatchSettings
from processor.wiring import dispatch as wiring


@click.command()
@click.option("--once", is_flag=True, help="Close and send what waits, then end: for cron.")
@click.option(
    "--to",
    metavar="FILE|-",
    help="Write JSON lines to a new file, or to standard output, not to USAGE_SINK_URL; ends by itself.",
)
@json_option
def dispatch(once: bool, to: str | None, as_json: bool) -> None:
    """Close due windows, and send their lines to the sink of USAGE_SINK_URL.

    The command runs until SIGTERM or Ctrl-C, and finishes the request in progress; /livez, /readyz and
    /metrics are on HTTP_PORT. Lines are marked as handed over once the sink has accepted them (2xx), and are
    retried until then: the same lines under the same keys. Several dispatchers share the work.

    After a restore, copy or failover of the database, nothing is handed over before `processor usage
    reconcile`, and /readyz reports it.

    With --once: exit code 0 if no line is left, 1 if lines are left, 4 if the sink or the database can't be
    reached. With --to, lines are marked once they are on disk, and an existing file is never overwritten.
    """
    settings = DispatchSettings.load()
    if to is None:
        settings.need_sink_url()
    settings.need_database_url()
    if trouble := password_trouble(settings):
        raise SettingsError(trouble)
    stop = threading.Event()
    if to is not None or once:
        _once(settings, to, stop, as_json=as_json)
        return
    logs.configure(settings.log_format, settings.log_level)
    with exit_on_thread_death(settings.stop_timeout_s), stop_at_signals(stop):
        wiring.run(settings, stop)


def _once(settings: DispatchSettings, to: str | None, stop: threading.Event, *, as_json: bool) -> None:
    with stop_at_signals(stop) as caught:
        if to is None:
            tally, waiting = wiring.run_once(settings, stop)
        else:
            tally, waiting = wiring.run_to_file(settings, None if to == "-" else Path(to), stop)
    # Standard output has only the lines.
    _say(tally, waiting, as_json=as_json, err=to == "-")
    if caught:
        raise SystemExit(128 + caught[0])
    if tally.trouble and not tally.reached:
        raise SystemExit(Exit.UNREACHABLE)
    if waiting.lines:
        raise SystemExit(Exit.FAILED)


def _say(tally: DispatchCounts, waiting: Waiting, *, as_json: bool, err: bool) -> None:
    if as_json and not err:
        print_json(
            {
                "windows_closed": tally.totals_closed,
                "lines_written": tally.lines_written,
                "requests": tally.requests,
                "lines_accepted": tally.lines_accepted,
                "lines_waiting": waiting.lines,
                "lines_refused": waiting.refused,
                "trouble": tally.trouble or None,
            }
        )
        return
    say(
        f"{tally.totals_closed} window(s) closed, {tally.lines_written} line(s) written, "
        f"{tally.lines_accepted} handed over",
        err=err,
    )
    if tally.trouble:
        say(f"the sink: {tally.trouble}", err=True)
    if waiting.lines:
        say(
            f"{waiting.lines} line(s) still wait, {waiting.refused} of them refused by the sink; they are "
            "sent again under the same keys (table usage_line, column trouble)",
            err=True,
        )


COMMANDS = [dispatch]
