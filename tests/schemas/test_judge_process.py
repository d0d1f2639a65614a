"""Tests that the judge process gives a verdict in bounded time for any schema and payload."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from processor.errors import MustWait, Reason, SettingsError, Stopped
from processor.model import EventSchema, Message, Registry, Rejection, Verdict
from processor.runtime import metrics
from processor.runtime.hangs import HangWatch
from processor.runtime.worker_board import ReportingJudge, WorkerStatuses
from processor.schemas.judge import client as judge_module
from processor.schemas.judge.client import Answer, JudgeProcess, require_usable
from processor.schemas.judge.frames import Broken, Found, Unusable, Usable, Valid
from processor.schemas.judge.process import JUDGE_CPU_S
from processor.validation.validator import Schemas
from tests.builders import ORDER_SCHEMA, a_body, a_delivery

Schema = tuple[str, str]
MARGIN = 5
"""CPU seconds above the limit that a verdict may take in all: parsing, and starting the next process."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="what a process does is read from /proc")


def a_schema(definition: Any) -> Schema:
    return (definition if isinstance(definition, str) else json.dumps(definition)), "assert"


UNIQUE = a_schema({"uniqueItems": True})


def large_numbers(count: int) -> str:
    """Compared pairwise: 1,000 numbers take 0.4 s, and the time is quadratic."""
    return "[" + ",".join(str(10**29 + number) for number in range(count)) + "]"


def judged(schema: Schema, payload: str, process: JudgeProcess | None = None) -> Verdict:
    judge = Schemas(body_bytes_max=4 * 1024 * 1024, json_depth_max=64, process=process)
    judge.install(Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, *schema),)))
    body = a_body(payload="PAYLOAD").decode().replace('"PAYLOAD"', payload)
    return judge.validate(a_delivery(body=body.encode()))


def a_doubling(word: str, levels: int = 40) -> dict[str, Any]:
    """Each definition applies the one before it twice."""
    defs: dict[str, Any] = {"a0": {"type": "string"}}
    for level in range(1, levels + 1):
        defs[f"a{level}"] = {word: [{"$ref": f"#/$defs/a{level - 1}"}] * 2}
    return {"properties": {"x": {"$ref": f"#/$defs/a{levels}"}}, "$defs": defs}


def nested(levels: int, inner: str) -> str:
    return '{"c":' * levels + inner + "}" * levels


SELF = {"$ref": "#"}
TINY = "{" + ",".join(f'"k{i}":1.1e-300' for i in range(55_000)) + "}"
KINDS = [
    {
        "properties": {"kind": {"const": str(kind)}},
        "required": ["kind"],
        "additionalProperties": {"type": ["integer", "string"]},
    }
    for kind in range(20)
]
DEAR: dict[str, tuple[Any, str]] = {
    "tiny numbers and kinds": ({"oneOf": KINDS}, TINY),
    "tiny numbers, unlike a constant": ({"additionalProperties": {"not": {"const": 7}}}, TINY),
    "tiny numbers and an enum": ({"additionalProperties": {"not": {"enum": list(range(100))}}}, TINY),
    "unique large numbers": ({"uniqueItems": True}, large_numbers(5_000)),
    "unique lists of them": (
        {"uniqueItems": True},
        "[" + ",".join(f"[{10**29 + i}]" for i in range(5_000)) + "]",
    ),
    "a pattern of many steps": (
        {"patternProperties": {r"(\w+\s?)*1\w{500}2": True}, "pattern": r"(\w+\s?)*1\w{500}2"},
        '"' + "01" * 400_000 + '"',
    ),
    "a doubling by anyOf": (a_doubling("anyOf"), '{"x":1}'),
    "a doubling by allOf": (a_doubling("allOf"), '{"x":"a"}'),
    "one child twice": ({"allOf": [{"properties": {"c": SELF}}] * 2}, nested(50, "1")),
    "a child twice, by way of what is left": (
        {"anyOf": [{"additionalProperties": SELF}], "unevaluatedProperties": SELF},
        nested(50, "1"),
    ),
    "errors in great depth": (
        {"anyOf": [{"type": "string"}, {"type": "array", "items": SELF}]},
        "[" * 55 + ",".join(['"a"'] * 90_000) + ",1" + "]" * 55,
    ),
    "many choices for each item": (
        {"items": {"oneOf": [{"const": i + 0.5} for i in range(1000)]}},
        "[" + ",".join(["0.25"] * 90_000) + "]",
    ),
    "multiples of next to nothing": (
        {"items": {"multipleOf": 1e-300}},
        "[" + ",".join(["1.7e307"] * 90_000) + "]",
    ),
}


@pytest.mark.parametrize("name", DEAR)
def test_whatever_is_dear_has_its_verdict_within_the_bound(name: str) -> None:
    """The test measures CPU time of this process and its children."""
    definition, payload = DEAR[name]
    process = JudgeProcess()
    before = cpu_s()

    verdict = judged(a_schema(definition), payload, process)
    process.close()

    assert isinstance(verdict, Rejection | Message)
    assert cpu_s() - before < MARGIN * JUDGE_CPU_S


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def test_a_payload_beyond_the_cpu_limit_is_unstorable_with_advice() -> None:
    verdict = judged(UNIQUE, large_numbers(5_000))

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.UNSTORABLE
    assert (
        "the limit of 1 s of CPU time is exceeded; correct the schema or the payload"
        in verdict.detail["message"]
    )
    assert (verdict.detail["schema_id"], verdict.detail["schema_version"]) == (1, 1)


def test_an_invalid_payload_is_a_violation_even_if_the_search_for_errors_fails() -> None:
    definition, payload = DEAR["errors in great depth"]

    verdict = judged(a_schema(definition), payload)

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.SCHEMA_VIOLATION
    assert (verdict.detail["errors"], verdict.detail["error_count"]) == ([], None)


def test_a_caller_that_may_not_wait_waits_only_for_the_first_compilation() -> None:
    """Otherwise the first event of a schema would wait behind all expensive ones."""
    judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64, process=JudgeProcess())
    schemas = [a_schema(ORDER_SCHEMA), UNIQUE]
    judge.install(
        Registry(
            1,
            {"acme": False},
            tuple(EventSchema(at, f"kind-{at}", None, 1, *schema) for at, schema in enumerate(schemas)),
        )
    )
    dear = a_body(event_type="kind-1", payload=[10**29 + number for number in range(2_000)])

    assert isinstance(judge.validate(a_delivery(event_type="kind-0"), may_wait=False), Message)
    invalid = judge.validate(a_delivery(event_type="kind-0", payload={}), may_wait=False)
    assert isinstance(invalid, Rejection)
    with pytest.raises(MustWait):
        judge.validate(a_delivery(body=dear), may_wait=False)


def test_the_next_payload_is_validated_by_a_new_process() -> None:
    process = JudgeProcess()

    assert isinstance(process.judge(UNIQUE, large_numbers(5_000)), Broken)
    assert process.judge(UNIQUE, "[1,2]") == Valid()
    assert process.judge(UNIQUE, "[1,1]") == Found([("", "/uniqueItems", "[1,1] has non-unique elements")], 1)


LONG = "x" * 100_000


def test_an_error_quotes_a_bounded_part_of_its_schema() -> None:
    process = JudgeProcess()
    names = {LONG: {"properties": {LONG: {"const": LONG}}}}

    found = process.judge(a_schema({"items": {"const": LONG}}), json.dumps([1] * 50))
    below = process.judge(a_schema({"properties": names}), json.dumps({LONG: {LONG: 1}}))

    assert isinstance(found, Found)
    assert isinstance(below, Found)
    assert (len(found.errors), found.count) == (50, 50)
    for answer in (found, below):
        assert all(len(words) < 2_000 for error in answer.errors for words in error)


def test_an_invalid_payload_is_a_violation_even_if_the_search_for_errors_runs_out_of_memory() -> None:
    before = named()

    verdict = judged(a_schema({"items": {"const": LONG * 10}}), json.dumps([1] * 2_000))

    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.SCHEMA_VIOLATION
    assert (verdict.detail["errors"], verdict.detail["error_count"]) == ([], None)
    assert named() == before


INVALID: list[tuple[Any, Any]] = [
    ({"required": ["a", "b"], "properties": {"c": {"type": "string"}}}, {"c": 1}),
    ({"items": {"minimum": 3}}, [1, 2, 3, "a"] * 30),
    (
        {"$defs": {"a/b": {"const": LONG[:3_000]}}, "properties": {"~": {"$ref": "#/$defs/a~1b"}}},
        {"~": LONG[:900]},
    ),
    ({"additionalProperties": False, "not": {}}, {"\u00e9": [{}]}),
]


def test_cheap_errors_are_found_in_the_worker_and_are_the_same() -> None:
    for definition, payload in INVALID:
        process = JudgeProcess()
        judge = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64, process=process)
        judge.install(
            Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, *a_schema(definition)),))
        )
        judge.validate(a_delivery(payload=payload))
        process.close()

        here = judge.validate(a_delivery(payload=payload))
        assert process.pid is None
        assert isinstance(here, Rejection)
        answer = process.judge(a_schema(definition), json.dumps(payload))
        assert isinstance(answer, Found)
        told = [(error["pointer"], error["rule"], error["message"]) for error in here.detail["errors"]]
        assert (told, here.detail["error_count"]) == (answer.errors, answer.count)


# ── what a schema is ──────────────────────────────────────────────────────────────────────────────────

MANY_PATTERNS = {"anyOf": [{"pattern": rf"[\w\W]{{200}}{i}"} for i in range(8_000)]}


def test_a_schema_that_is_too_expensive_to_compile_is_unusable_and_the_next_is_not() -> None:
    process = JudgeProcess()

    assert isinstance(process.compile(a_schema(MANY_PATTERNS)), Unusable)
    assert isinstance(process.compile(a_schema({})), Usable)


def a_large_one(number: int, patterns: int) -> Schema:
    """A compiled pattern takes some 200 KB."""
    return a_schema({"anyOf": [{"pattern": rf"[\w\W]{{200}}{number}x{i}"} for i in range(patterns)]})


def test_earlier_schemas_do_not_affect_an_answer() -> None:
    """Together more than the memory limit of the process, but each is fine by itself."""
    process, payload = JudgeProcess(), large_numbers(100_000)

    for number in range(50):
        assert isinstance(process.compile(a_large_one(number, 400 if number < 9 else 50)), Usable)
        assert process.judge(a_schema({"type": "array"}), payload) == Valid()


def test_a_process_keeps_a_bounded_number_of_schemas() -> None:
    process, pids = JudgeProcess(), set()

    for number in range(600):
        assert process.judge(a_schema({"const": number}), str(number)) == Valid()
        pids.add(process.pid)
    for number in range(12):
        assert process.judge(a_schema({"const": number, "$comment": LONG * 20}), str(number)) == Valid()
        pids.add(process.pid)

    assert len(pids) == 3


def test_a_schema_that_never_compiles_is_rejected_before_publishing() -> None:
    definition = json.dumps(
        {"allOf": [a_doubling("anyOf")["properties"]["x"]], "$defs": a_doubling("anyOf")["$defs"]}
    )

    with pytest.raises(
        SettingsError,
        match=r"^not a usable JSON Schema: .*the limit of 5 s of CPU time is exceeded; make it smaller",
    ):
        require_usable(definition, "assert")


def test_an_unusable_schema_is_in_the_metric_until_it_is_removed() -> None:
    judge = Schemas(body_bytes_max=1024, json_depth_max=64)
    unusable = EventSchema(7, "order.odd", None, 3, '{"type": "nope"}')
    judge.install(Registry(1, {"acme": False}, (unusable,)))
    judge.validate(a_delivery(event_type="order.odd"))

    assert ("order.odd", "3") in named()
    judge.install(Registry(2, {"acme": False}, ()))
    assert ("order.odd", "3") not in named()


def test_a_shared_schema_stays_in_the_metric_when_a_tenants_own_version_is_removed() -> None:
    judge = Schemas(body_bytes_max=1024, json_depth_max=64)
    shared = EventSchema(8, "order.twice", None, 1, '{"type": "nope"}')
    own = EventSchema(9, "order.twice", "acme", 1, '{"type": "nope"}')
    judge.install(Registry(1, {"acme": False, "globex": False}, (shared, own)))
    for tenant_id in ("acme", "globex"):
        judge.validate(a_delivery(event_type="order.twice", tenant_id=tenant_id))

    judge.install(Registry(2, {"acme": False, "globex": False}, (shared,)))
    assert ("order.twice", "1") in named()
    judge.install(Registry(3, {"acme": False}, ()))
    assert ("order.twice", "1") not in named()


def named() -> set[tuple[str, str]]:
    [family] = metrics.schema_unusable.collect()
    return {(sample.labels["event_type"], sample.labels["schema_version"]) for sample in family.samples}


# ── what becomes of the process ───────────────────────────────────────────────────────────────────────


@contextmanager
def judging(process: JudgeProcess, payload: str) -> Iterator[list[Answer | Stopped]]:
    """Validate in a thread, which ends with the block; the block starts when the process is busy."""
    answers: list[Answer | Stopped] = []

    def judge() -> None:
        try:
            answers.append(process.judge(UNIQUE, payload))
        except Stopped as stopped:
            answers.append(stopped)

    thread = threading.Thread(target=judge, daemon=True)
    assert process.judge(UNIQUE, "[]") == Valid()
    before = ticks(process.pid)
    thread.start()
    wait_until(lambda: ticks(process.pid) > before + 5, "it is at it")
    yield answers
    thread.join(60)


def ticks(pid: int | None) -> int:
    """The CPU time of a process, usually in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def wait_until(condition: Callable[[], bool], what: str) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at, f"waited in vain until {what}"
        time.sleep(0.01)


@linux
def test_a_payload_is_validated_again_after_its_process_was_killed() -> None:
    process = JudgeProcess()

    with judging(process, large_numbers(800)) as answers:
        killed = process.pid
        os.kill(killed or 0, signal.SIGKILL)

    assert answers == [Valid()]
    assert process.pid != killed


@linux
def test_a_payload_that_always_kills_the_process_is_given_up() -> None:
    """As if the system killed the process for lack of memory."""
    process = JudgeProcess()
    answers: list[Answer] = []
    thread = threading.Thread(
        target=lambda: answers.append(process.judge(UNIQUE, large_numbers(800))), daemon=True
    )
    thread.start()

    while thread.is_alive():
        pid = process.pid
        if pid is not None:
            try:
                if ticks(pid) > 20:
                    os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        time.sleep(0.001)

    assert isinstance(answers[0], Broken)
    assert "failed 5 times: it ended by SIGKILL" in answers[0].words


@linux
def test_a_silent_process_is_replaced_and_the_payload_is_not_blamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = JudgeProcess()
    monkeypatch.setattr(judge_module, "_KILLS_MAX", 1)
    monkeypatch.setattr(judge_module, "_SILENCE_S_MAX", 1)

    with judging(process, large_numbers(800)) as answers:
        os.kill(process.pid or 0, signal.SIGSTOP)
        wait_until(lambda: "has not answered" in process.trouble, "it was given up")
        monkeypatch.setattr(judge_module, "_SILENCE_S_MAX", 60)

    assert answers == [Valid()]


@linux
def test_a_silent_process_does_not_delay_a_stop() -> None:
    stop = threading.Event()
    process = JudgeProcess(stop=stop)

    with judging(process, large_numbers(800)) as answers:
        os.kill(process.pid or 0, signal.SIGSTOP)
        stop.set()

    assert isinstance(answers[0], Stopped)


def test_a_process_that_cannot_start_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    process, there = JudgeProcess(), sys.executable
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(process.judge(UNIQUE, "[]")), daemon=True)
    thread.start()
    wait_until(lambda: "can't be started" in process.trouble, "it was tried")

    monkeypatch.setattr(sys, "executable", there)
    thread.join(60)

    assert answers == [Valid()]
    assert process.trouble == ""


@linux
def test_the_judge_process_gets_no_secrets_and_no_terminal_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://a:secret@b/c")
    process = JudgeProcess()
    assert process.judge(UNIQUE, "[]") == Valid()
    pid = process.pid or 0

    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert process.judge(UNIQUE, "[1]") == Valid()
    assert process.pid == pid


_WORKER = """
import time
from processor.schemas.judge.client import JudgeProcess
process = JudgeProcess()
process.judge(("{}", "assert"), "[]")
print(process.pid, flush=True)
time.sleep(600)
"""


@linux
def test_the_judge_process_ends_with_its_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", _WORKER], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        worker.kill()

    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it has ended too")


def test_a_worker_that_waits_for_the_judge_process_keeps_its_heartbeat() -> None:
    """The limit of a turn is a part of the time limit of the judge."""
    row = WorkerStatuses().rows[0]
    process = JudgeProcess(at_rest=row.at_rest)
    schemas = Schemas(body_bytes_max=1024 * 1024, json_depth_max=64, process=process)
    schemas.install(Registry(1, {"acme": False}, (EventSchema(1, "order.created", None, 1, *UNIQUE),)))
    body = a_body(payload="PAYLOAD").decode().replace('"PAYLOAD"', large_numbers(5_000)).encode()
    verdicts: list[Verdict] = []
    watched = ReportingJudge(schemas, row)
    thread = threading.Thread(
        target=lambda: verdicts.append(watched.validate(a_delivery(body=body))), daemon=True
    )
    watch = HangWatch(row, os.getpid(), limit_s=JUDGE_CPU_S / 4)
    thread.start()

    looks = 0
    while thread.is_alive():
        row.beat()
        assert watch.look() is None
        looks += 1
        thread.join(0.02)

    # With the GIL held there would be one heartbeat, or two.
    assert looks > 10
    assert isinstance(verdicts[0], Rejection)
    assert row.turns() == []
