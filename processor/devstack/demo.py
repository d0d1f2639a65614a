"""`processor demo`: servers, producers, processor, audit and hand-over in under a minute.

    start servers ─▶ migrate, seed ─▶ processor run ─▶ producers fake ─▶ watch ─▶ stop ─▶ audit ─▶ hand over

The demo uses a temporary directory and free ports, and leaves nothing behind.
"""

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from processor.devstack.hand_over import show_hand_over, since
from processor.devstack.interrupts import Interrupted, Interrupts, interrupts
from processor.devstack.progress import DemoProgress, Seen, Watch
from processor.devstack.report import Printer
from processor.devstack.servers.children import Child, DevstackError, free_port, uninterrupted
from processor.devstack.stack import BAD_SHARES, Stack, wait_until_ready
from processor.errors import ProcessorError

POLL_S = 0.2
# If the queue is empty and rows are missing for so long, waiting won't help; the audit reports the problem.
SHORT_S = 3.0
STUCK_S = 60.0
STOP = ((signal.SIGTERM, 40.0),)


def run_demo(*, events: int, seed: int) -> int:
    """Process this many events in a temporary stack, print the outcomes, and return the exit code.

    0 only if the audit holds; else the audit's code, or 1 after a failure; 130 after Ctrl-C and 143 after
    SIGTERM. All processes have ended and the temporary directory is removed on return.
    """
    report = Printer()
    try:
        with interrupts() as signals, contextlib.ExitStack() as cleanup:
            # Registered last, so it runs first: a second Ctrl-C must not interrupt the cleanup.
            try:
                return _demo(cleanup, signals, report, events, seed)
            finally:
                signals.ignore()
    except Interrupted as stop:
        report.say(f"Stopped by {stop}; all processes have ended, and the temporary files are gone.")
        return stop.exit_code
    except (ProcessorError, psycopg.Error, BotoCoreError, ClientError, OSError) as error:
        report.fail(str(error))
        return 1


def _demo(cleanup: contextlib.ExitStack, signals: Interrupts, report: Printer, events: int, seed: int) -> int:
    started = time.monotonic()
    with uninterrupted():
        directory = Path(tempfile.mkdtemp(prefix="event-processor-demo-"))
        cleanup.callback(shutil.rmtree, directory, ignore_errors=True)
    stack = Stack(directory)
    cleanup.callback(stack.stop)
    report.say("Starting PostgreSQL and SQS on 127.0.0.1 (temporary, on free ports) ...")
    stack.start()
    report.say(
        f"PostgreSQL on port {stack.postgres.port}, SQS on port {stack.sqs.port}; migrated and seeded."
    )

    http_port = free_port()
    with uninterrupted():
        # A short poll lets the demo end soon: a stopping processor waits for its poll.
        processor = stack.spawn_processor(http_port, RECEIVE_WAIT_S="1")
        cleanup.callback(processor.stop, *STOP)
    wait_until_ready(processor, http_port)
    manifest = directory / "manifest.jsonl"
    report.say(
        f"The processor is running. Producers send {events:,} events (seed {seed}), some bad, some twice:"
    )
    fake = _fake(events, seed)
    with uninterrupted():
        producers = stack.spawn(
            "producers", [sys.executable, "-m", "producers", *fake, "--manifest", str(manifest)]
        )
        cleanup.callback(producers.stop, *STOP)

    _watch(stack, signals, processor, producers, manifest, events)
    code = processor.stop(*STOP)
    if code != 0:
        raise DevstackError(
            f"`processor run` ended with exit code {code}; its log ends with:{processor.log_tail()}"
        )
    audited, said = stack.run_to_end(
        "audit", [sys.executable, "-m", "processor", "audit", "--manifest", str(manifest)]
    )
    report.outcomes(stack.database_url)
    report.audit(said, audited)
    balanced = show_hand_over(cleanup, stack, report)
    report.look_further(stack.postgres.psql, " ".join(fake))
    report.say(f"\nDone in {time.monotonic() - started:.1f} s.")
    return audited or int(not balanced)


def _fake(events: int, seed: int) -> list[str]:
    """Return the arguments of `producers` for the demo's events."""
    began = since(events).strftime("%Y-%m-%dT%H:%M:%SZ")
    return ["fake", "--events", str(events), "--seed", str(seed), "--since", began, *BAD_SHARES]


def _watch(
    stack: Stack, signals: Interrupts, processor: Child, producers: Child, manifest: Path, events: int
) -> None:
    """Show progress until every accepted message has a row and the queue is empty.

    Also returns if the queue is empty and rows stay missing; the audit reports them. Raises DevstackError if
    a process dies, the producers fail, or the state does not change for a minute.
    """
    with Watch(stack, manifest) as watch, DemoProgress(events) as progress:
        while True:
            signals.obey()
            seen = _look(stack, watch)
            progress.show(seen)
            stack.check_servers()
            sent = producers.exit_code()
            if sent not in (None, 0):
                raise DevstackError(
                    f"the producers ended with exit code {sent}; they said:{producers.log_tail()}"
                )
            if processor.exit_code() is not None:
                raise DevstackError(
                    f"`processor run` ended by itself; its log ends with:{processor.log_tail()}"
                )
            if sent == 0 and seen.waiting == 0 and (seen.done >= seen.accepted or watch.still_s() > SHORT_S):
                return
            if watch.still_s() > STUCK_S:
                raise DevstackError(
                    f"nothing has moved for {STUCK_S:.0f} s with {seen.waiting} messages waiting; "
                    f"the processor's log ends with:{processor.log_tail()}"
                )
            time.sleep(POLL_S)


def _look(stack: Stack, watch: Watch) -> Seen:
    """Observe once; if a server has died, raise that instead of the driver's error."""
    try:
        return watch.look()
    except (psycopg.Error, BotoCoreError, ClientError):
        time.sleep(POLL_S)
        stack.check_servers()
        raise
