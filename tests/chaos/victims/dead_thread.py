"""One thread dies of a bug: `python -m tests.chaos.victims.dead_thread NAME PROGRAM ...`.

PROGRAM is `processor` or `producers`, with its words. The thread (or task of asyncio) of that name raises as
soon as it is started; the program itself knows nothing of this.
"""

import asyncio
import importlib
import sys
import threading
from collections.abc import Coroutine
from typing import Any


class Bug(Exception):
    """What nobody has thought of."""


def arm(name: str) -> None:
    """Make the threads and tasks of that name die."""
    run, create_task = threading.Thread.run, asyncio.create_task

    def dying(thread: threading.Thread) -> None:
        if thread.name == name:
            raise Bug
        run(thread)

    async def fail(work: Coroutine[Any, Any, Any]) -> None:
        work.close()
        raise Bug

    def creating(work: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        return create_task(fail(work) if options.get("name") == name else work, **options)

    setattr(threading.Thread, "run", dying)  # noqa: B010 - by name, because mypy knows it is a method
    setattr(asyncio, "create_task", creating)  # noqa: B010


if __name__ == "__main__":
    arm(sys.argv.pop(1))
    importlib.import_module(f"{sys.argv.pop(1)}.cli").main()
