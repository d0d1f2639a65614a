"""The worker's end of its judge process: asks, waits with the interpreter free, makes of any end an answer.

worker threads ─▶ one lock ─▶ pipe ─▶ judge process       its end: by SIGPROF ─▶ it took too long
                                                          by SIGKILL, or never begun ─▶ outage: again
                                                          by anything else, twice ─▶ the library's fault

A process that has reported a fault is ended. So the second time is in one that knows this schema alone:
nothing that was compiled or judged before is part of an answer.
"""

import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any, TypeAlias, TypeVar

from processor.errors import SettingsError, Stopped, Unavailable
from processor.runtime.outages import OutageRetry
from processor.schemas.judge.frames import (
    LENGTH,
    Broken,
    Compile,
    Found,
    Invalid,
    JudgeRequest,
    NotUnicode,
    Request,
    Unusable,
    Usable,
    Valid,
    decode_reply,
    frame,
)
from processor.schemas.judge.process import COMPILE_CPU_S, JUDGE_CPU_S

_SILENCE_S_MAX = 120.0
"""For how long a judge may not answer, and not end either: it was stopped, or has no CPU."""

_KILLS_MAX = 5
"""A payload at which it was killed from outside so often is what it is killed for: for want of memory."""

_FAULTS_MAX = 2
"""One may be the machine's, or that of what the process had compiled before."""

_SCHEMAS_MAX, _TEXT_MAX = 500, 16 * 1024 * 1024
"""Schemas, and characters of their texts, that a process keeps compiled: some 25 bytes of memory each."""

_TICK_S = 0.2
_PART_BYTES = 1024 * 1024
_WAIT_S_MAX = 5.0
_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "SYSTEMROOT", "TMPDIR")
"""All that it needs of ours, which may hold passwords."""

T = TypeVar("T")
Schema: TypeAlias = tuple[str, str]
"""Its text and its formats."""

Answer: TypeAlias = Valid | Found | NotUnicode | Broken


class JudgeUnavailable(Unavailable):
    """The judge process can't be started, or was killed from outside."""


class _JudgeEnded(Exception):
    """The judge process has ended before its answer; the code is as subprocess gives it."""

    def __init__(self, code: int) -> None:
        super().__init__(
            f"it has ended {f'of {signal.Signals(-code).name}' if code < 0 else f'with code {code}'}"
        )
        self.code = code

    @property
    def from_outside(self) -> bool:
        """Whether somebody else has killed it: an operator, or a system that is short of memory."""
        return self.code in (-signal.SIGKILL, -signal.SIGTERM)


class _Failed(Exception):
    """The judge process has reported a fault. Nobody knows what else broke in it: it is to be ended."""


class JudgeProcess:
    """One judge process, started when it is needed. Safe to share between threads, which it serves in turn.

    `stop` ends any wait, with Stopped. `at_rest` is entered for as long as a thread waits for an answer.
    """

    def __init__(
        self,
        *,
        stop: threading.Event | None = None,
        at_rest: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._stop = stop or threading.Event()
        self._at_rest = at_rest
        self._retry = OutageRetry("judge process", wait_s_max=_WAIT_S_MAX, stop=self._stop)
        self._next, self._lock = threading.Lock(), threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._come = bytearray()
        # What this process, and no earlier one, has compiled, and its key there.
        self._compiled: dict[Schema, tuple[int, Usable | Unusable]] = {}

    @property
    def pid(self) -> int | None:
        """The process that runs, or has run last; None: none was needed."""
        return self._process.pid if self._process is not None else None

    @property
    def trouble(self) -> str:
        """Why there is no process although one is needed, in words; empty when all is well."""
        return self._retry.trouble

    def close(self) -> None:
        """End the process; another is started when it is needed."""
        with self._turn():
            self._drop()

    def compile(self, schema: Schema) -> Usable | Unusable:
        """Try whether a schema can be used. Raises Stopped."""
        found = self._outlast(lambda: self._compile(schema)[1], COMPILE_CPU_S)
        if isinstance(found, Broken):
            return Unusable(
                f"not a usable JSON Schema: {found.words}; make it smaller: fewer references that lead to "
                "others, fewer and shorter repetitions in patterns"
            )
        return found

    def judge(self, schema: Schema, payload: str) -> Answer:
        """Judge a payload by a schema that can be used. Raises Stopped."""
        return self._outlast(lambda: self._judge(schema, payload), JUDGE_CPU_S)

    def _compile(self, schema: Schema) -> tuple[int, Usable | Unusable]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self._start()
        if schema not in self._compiled:
            text = len(schema[0]) + sum(len(definition) for definition, _ in self._compiled)
            if self._compiled and (len(self._compiled) >= _SCHEMAS_MAX or text > _TEXT_MAX):
                self._start()
            key = len(self._compiled)
            self._compiled[schema] = key, self._ask(Compile(key, *schema))
        return self._compiled[schema]

    def _judge(self, schema: Schema, payload: str) -> Answer:
        key, compiled = self._compile(schema)
        if isinstance(compiled, Unusable):
            return Broken(compiled.words)
        reply: Answer | Invalid = self._ask(JudgeRequest(key, payload))
        if not isinstance(reply, Invalid):
            return reply
        try:
            found: Found | NotUnicode = self._answer()
        except (_Failed, _JudgeEnded) as ended:
            if isinstance(ended, _JudgeEnded) and ended.from_outside:
                raise
            # The verdict is there; where it is not valid was too much to ask.
            self._drop()
            return Found([], None)
        return found

    def _outlast(self, ask: Callable[[], T], cpu_s: float) -> T | Broken:
        """Ask in turn with the others, until there is an answer or it is known that there is none."""
        kills = faults = 0

        def attempt() -> T | Broken:
            nonlocal kills, faults
            while True:
                try:
                    with self._turn():
                        return ask()
                except _Failed as failed:
                    faults += 1
                    if faults >= _FAULTS_MAX:
                        return Broken(str(failed))
                except _JudgeEnded as ended:
                    if ended.code == -signal.SIGPROF:
                        return Broken(f"it takes longer than {cpu_s:g} s of CPU time")
                    kills += ended.from_outside
                    faults += not ended.from_outside
                    if kills >= _KILLS_MAX or faults >= _FAULTS_MAX:
                        return Broken(
                            f"the process that judges it fails {kills + faults} times: at last {ended}"
                        )
                    if ended.from_outside:
                        raise JudgeUnavailable(str(ended)) from None

        with self._at_rest():
            return self._retry(attempt)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # Whoever waits is next: else one that comes again at once could be first each time.
        self._acquire(self._next)
        try:
            self._acquire(self._lock)
        finally:
            self._next.release()
        try:
            yield
        except BaseException:
            # Whatever it was, an answer may still come that belongs to no question.
            self._drop()
            raise
        finally:
            self._lock.release()

    def _acquire(self, lock: threading.Lock) -> None:
        while not lock.acquire(timeout=_TICK_S):
            self._check_stop()

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise Stopped("told to stop while waiting for the judge process")

    # ── the process ───────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        self._drop()
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            process = subprocess.Popen(
                [sys.executable, "-S", "-P", "-m", "processor.schemas.judge.process"],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # A panic writes there, and quotes what it was at. Ours may be closed.
                stderr=subprocess.DEVNULL,
                env=environment | {"PYTHONPATH": path},
                # Else a Ctrl-C at our terminal would be one at its.
                start_new_session=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise JudgeUnavailable(f"it can't be started: {error}") from error
        assert process.stdin is not None  # noqa: S101 - a pipe
        os.set_blocking(process.stdin.fileno(), False)
        self._process, self._owner = process, os.getpid()
        self._end = weakref.finalize(self, _end, process, self._owner)
        try:
            self._answer()
        except _JudgeEnded as ended:
            raise JudgeUnavailable(f"{ended} before it began") from None

    def _drop(self) -> None:
        if self._process is not None:
            self._end()
        self._process = None
        self._come.clear()
        self._compiled.clear()

    def _ask(self, request: Request) -> Any:  # noqa: ANN401 - a reply to this request
        assert self._process is not None and self._process.stdin is not None  # noqa: S101, PT018 - as above
        pipe, data = self._process.stdin.fileno(), memoryview(frame(request))
        while data:
            self._wait_for(pipe, select.POLLOUT)
            try:
                data = data[os.write(pipe, data) :]
            except BrokenPipeError:
                # How it ended is told below.
                break
        return self._answer()

    def _answer(self) -> Any:  # noqa: ANN401 - a reply
        (size,) = LENGTH.unpack(self._read(LENGTH.size))
        reply = decode_reply(self._read(size))
        if isinstance(reply, Broken):
            raise _Failed(reply.words)
        return reply

    def _read(self, size: int) -> bytes:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101, PT018 - as above
        pipe = self._process.stdout.fileno()
        while len(self._come) < size:
            self._wait_for(pipe, select.POLLIN)
            part = os.read(pipe, _PART_BYTES)
            if not part:
                raise _JudgeEnded(self._process.wait())
            self._come += part
        data = bytes(self._come[:size])
        del self._come[:size]
        return data

    def _wait_for(self, pipe: int, event: int) -> None:
        give_up_at = time.monotonic() + _SILENCE_S_MAX
        poll = select.poll()
        poll.register(pipe, event)
        while not poll.poll(_TICK_S * 1000):
            self._check_stop()
            if time.monotonic() >= give_up_at:
                raise JudgeUnavailable(f"it has not answered for {_SILENCE_S_MAX:g} s")


@cache
def shared() -> JudgeProcess:
    """Give the one of this process, for whoever has none of its own."""
    return JudgeProcess()


def require_usable(definition: str, formats: str) -> None:
    """Raise SettingsError, in words, where a schema can't be used, whatever it does to its compiler."""
    found = shared().compile((definition, formats))
    if isinstance(found, Unusable):
        raise SettingsError(found.words)


def _end(process: subprocess.Popen[bytes], owner: int) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if owner == os.getpid():
        process.kill()
        process.wait()
