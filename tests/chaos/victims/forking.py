"""`processor run` as children of one warm process: `python -m tests.chaos.victims.forking run`.

A child that is killed is followed by the next at once, without the second that Python takes to import
everything, so that a load meets many more kills in the same time. SIGTERM ends the child, then this process.
"""

import os
import signal
import sys
from types import FrameType

# What a run imports when it needs it; here it is needed each time.
import boto3  # noqa: F401
import botocore.session  # noqa: F401

import processor.brokers.fast_sqs.plain_case  # noqa: F401
from processor.cli import main


def _child() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv[0] = "processor"
    try:
        main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(0)


def follow_children() -> int:
    """Keep one child running; gives the exit code of the first that was not killed."""
    child = 0
    ending = False

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        # Its child may be dead already, and then nobody would hear it.
        ending = True
        os.kill(child, number)

    while True:
        # Blocked for the moment in which nobody could be told.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        child = os.fork()
        if not child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            _child()
        signal.signal(signal.SIGTERM, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if ending or code != -signal.SIGKILL:
            return code


if __name__ == "__main__":
    sys.exit(follow_children())
