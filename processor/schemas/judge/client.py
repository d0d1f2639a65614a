"""Runs the judge process for a worker: sends requests, and turns any end of the process into an answer.

worker threads ─▶ one lock ─▶ pipe ─▶ judge process       end by SIGPROF ─▶ time limit exceeded
                                                          end by SIGKILL, or failed start ─▶ outage: retry
                                                          any other end, twice ─▶ fault of the library

A process that reported a fault is ended. So the retry runs in a process that knows only this schema, and no
earlier schema or payload can affect the answer.
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
"""Seconds without an answer from a live judge, which was stopped or gets no CPU."""

_KILLS_MAX = 5
"""After so many kills from outside the payload is the cause: out of memory."""

_FAULTS_MAX = 2
"""One fault may come from the machine, or from what the process compiled before."""

_SCHEMAS_MAX, _TEXT_MAX = 500, 16 * 1024 * 1024
"""Limits of the compiled schemas in a process: count and characters, at some 25 bytes of memory each."""

_TICK_S = 0.2
_PART_BYTES = 1024 * 1024
_WAIT_S_MAX = 5.0
_ENVIRONMENT = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "SYSTEMROOT", "TMPDIR")
"""The only inherited variables: others may hold passwords."""

T = TypeVar("T")
Schema: TypeAlias = tuple[str, str]
"""The text and the format mode of a schema."""

Answer: TypeAlias = Valid | Found | NotUnicode | Broken


class JudgeUnavailable(Unavailable):
    """The judge process can't be started, or was killed from outside."""


class _JudgeEnded(Exception):
    """The judge process ended before its answer; `code` is the return code of subprocess."""

    def __init__(self, code: int) -> None:
        super().__init__(
            f"it ended {f'by {signal.Signals(-code).name}' if code < 0 else f'with code {code}'}"
        )
        self.code = code

    @property
    def from_outside(self) -> bool:
        """Whether the process was killed from outside: by an operator, or by a system out of memory."""
        return self.code in (-signal.SIGKILL, -signal.SIGTERM)


class _Failed(Exception):
    """The judge process reported a fault. Its state is unknown, so the process must be ended."""


class JudgeProcess:
    """A judge process, started on demand. Thread-safe; threads are served in turn.

    `stop` ends any wait, with Stopped. `at_rest` is entered while a thread waits for an answer.
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
        # The keys of the schemas that this process has compiled.
        self._compiled: dict[Schema, tuple[int, Usable | Unusable]] = {}

    @property
    def pid(self) -> int | None:
        """The pid of the current or last process; None: none was started."""
        return self._process.pid if self._process is not None else None

    @property
    def trouble(self) -> str:
        """Why a needed process does not run; empty: all is well."""
        return self._retry.trouble

    def close(self) -> None:
        """End the process; a later request starts another."""
        with self._turn():
            self._drop()

    def compile(self, schema: Schema) -> Usable | Unusable:
        """Compile a schema. Raises Stopped."""
        found = self._ask_with_retries(lambda: self._compile(schema)[1], COMPILE_CPU_S)
        if isinstance(found, Broken):
            return Unusable(
                f"not a usable JSON Schema: {found.words}; make it smaller: fewer nested references, "
                "others, fewer and shorter repetitions in patterns"
            )
        return found

    def judge(self, schema: Schema, payload: str) -> Answer:
        """Validate a payload with a usable schema. Raises Stopped."""
        return self._ask_with_retries(lambda: self._judge(schema, payload), JUDGE_CPU_S)

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
            # The verdict is known; only the search for errors exceeded the limit.
            self._drop()
            return Found([], None)
        return found

    def _ask_with_retries(self, ask: Callable[[], T], cpu_s: float) -> T | Broken:
        """Send a request in turn, and retry until there is an answer or a final failure."""
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
                        return Broken(f"the limit of {cpu_s:g} s of CPU time is exceeded")
                    kills += ended.from_outside
                    faults += not ended.from_outside
                    if kills >= _KILLS_MAX or faults >= _FAULTS_MAX:
                        return Broken(f"the judge process failed {kills + faults} times: {ended}")
                    if ended.from_outside:
                        raise JudgeUnavailable(str(ended)) from None

        with self._at_rest():
            return self._retry(attempt)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # Threads wait in a queue: otherwise a fast thread could always be first.
        self._acquire(self._next)
        try:
            self._acquire(self._lock)
        finally:
            self._next.release()
        try:
            yield
        except BaseException:
            # After an error, a late answer would belong to no request.
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
                # Panics write to stderr, and quote payloads. Our stderr may be closed.
                stderr=subprocess.DEVNULL,
                env=environment | {"PYTHONPATH": path},
                # Otherwise Ctrl-C at our terminal would reach the process.
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
                # The exit code is read below.
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
    """Return the shared judge process of this worker."""
    return JudgeProcess()


def require_usable(definition: str, formats: str) -> None:
    """Raise SettingsError for an unusable schema, even if it crashes the compiler."""
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
