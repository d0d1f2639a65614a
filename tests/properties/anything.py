"""What may come: any bytes, any JSON however written, and valid events with one thing wrong.

JSON is made as text, not of values, since what no writer would write is what finds faults. Each message is
made of one seed: hypothesis then finds which of a batch are guilty, and need not draw every byte itself.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from processor.wire.formats import Attribute

FRESH = "@@"
"""Stands in bodies and attributes for what is different at each sending, so that ids are new."""


@dataclass(frozen=True)
class Sending:
    """One message as a producer sends it: each time the same but for what is fresh.

    `sound`: nothing of its form is wrong, so only its tenant, event type or schema may refuse it.
    """

    body: bytes
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    receive_count: int = 1
    sound: bool = False

    def body_of(self, number: int) -> bytes:
        return self.body.replace(FRESH.encode(), b"%d" % number)

    def attributes_of(self, number: int) -> dict[str, Attribute]:
        return {
            name: value.replace(FRESH, str(number)) if isinstance(value, str) else value
            for name, value in self.attributes.items()
        }


# ── JSON, as text ─────────────────────────────────────────────────────────────────────────────────────

_NUMBERS = (
    "0",
    "-0",
    "-0.0",
    "0e0",
    "0E-0",
    "0e-307",
    "1.0",
    "1.10",
    "1e5",
    "1E+5",
    "12e-3",
    "1e308",
    "1.7976931348623157e308",
    "1e-307",
    "1e-308",
    "1e00000001",
    "2.2250738585072014e-308",
    "9007199254740993",
    "-9223372036854775808",
    "18446744073709551616",
    "0.1",
    "1e16",
    "1e22",
    "1e-5",
    "0.30000000000000004",
    "123456789e-20",
    "3.141592653589793238462643383279502884197",
)
_BAD_NUMBERS = (
    "1.7976931348623159e308",
    "9e308",
    "5e-324",
    "1e-400",
    "1e999999",
    "-1e-999999",
    "0e999999",
    "00",
    "01",
    "+1",
    "1.",
    ".5",
    "1e",
    "1e+",
    "0x10",
    "1_000",
    "-",
    "NaN",
    "Infinity",
    "-Infinity",
)
_PIECES = (
    *("a", "é", "\U0001f980", "\ufeff", "\u2028", "\ufffe", "\uffff", "\u0085", "\u202e", "\x7f", " ", "%s"),
    *(r"\n", r"\/", r"\\", r"\"", r"\u0041", r"\u0001", r"\u001b[2J", r"\uFFFF", r"\ufdd0", r"\u0085"),
    *(r"\ud83e\udd80", r"\uD800\uDC00"),
)
_POISON_PIECES = (r"\u0000", r"\ud83e", r"\udc00", r"\udc00\ud800", r"\ud83e\u0041", r"\uDBFF\uDBFF")
"""JSON, and refused by PostgreSQL."""
_BAD_PIECES = (*_POISON_PIECES, r"\x41", "\\", "\0", "\ud800", "\x1f", "\n", '"')
_SPACES = (*[""] * 12, " ", "\n\t", "\r\n", " " * 50)
_BAD_SPACES = ("\u00a0", "\ufeff", "\x0b", "\0", "/**/", ",")
_KEYS = ("a", "b", "total", "note", "", "a\\u0062", "ab", "\\u00e9", "é")
_BRACKETS = (("[", "]"), ('{"a":', "}"), ("[[", "]]"))


class Writer:
    """Writes JSON by chance; with `bad_ratio` above 0 some of what it writes is not to be taken.

    If `poisonous` it is JSON all the same, of which PostgreSQL may refuse the strings.
    """

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.bad_ratio = chance.choice([0, 0, 0, 0.01, 0.1])
        self.poisonous = not self.bad_ratio and chance.random() < 0.25

    @property
    def sound(self) -> bool:
        return not self.bad_ratio and not self.poisonous

    def one_of(self, good: Sequence[str], bad: Sequence[str]) -> str:
        return self.chance.choice(bad if self.chance.random() < self.bad_ratio else good)

    def number(self) -> str:
        chance = self.chance
        match chance.randrange(6):
            case 0 | 1:
                return self.one_of(_NUMBERS, _BAD_NUMBERS)
            case 2:
                return repr(chance.uniform(-1, 1) * 10.0 ** chance.randint(-290, 290))
            case 3:
                return str(chance.getrandbits(chance.choice([1, 8, 53, 64, 200])) * chance.choice([1, -1]))
            case 4:
                fraction = "".join(chance.choices("0123456789", k=chance.randint(1, 30)))
                return f"{chance.randrange(10**9)}.{fraction}{chance.choice(['', 'e-7', 'E+12', 'e0'])}"
            case _:
                return "7" * int(self.one_of(["1", "40", "308"], ["309", "1000", "1001", "4301"]))

    def string(self) -> str:
        good = _PIECES + _POISON_PIECES if self.poisonous else _PIECES
        pieces = [self.one_of(good, _BAD_PIECES) for _ in range(self.chance.randint(0, 3))]
        if self.chance.randrange(3) == 0:
            letters = [chr(self.chance.randrange(0x20, 0x110000)) for _ in range(self.chance.randint(0, 4))]
            text = "".join(letters).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            pieces.append(json.dumps(text, ensure_ascii=self.chance.random() < 0.5)[1:-1])
        return f'"{"".join(pieces)}"'

    def space(self) -> str:
        return self.one_of(_SPACES, _BAD_SPACES)

    def value(self, depth: int = 0) -> str:
        match self.chance.randrange(12 if depth < 3 else 8):
            case 0 | 1 | 2:
                return self.number()
            case 3 | 4 | 5:
                return self.string()
            case 6 | 7:
                return self.one_of(["null", "true", "false"], ["nul", "True", "undefined", ""])
            case 8:
                # Together with the envelope around it, up to the limit of 64; and beyond.
                times = int(
                    self.one_of(["2", "28", "29"], ["31", "32", "61", "62", "63", "64", "65", "3000"])
                )
                opening, closing = self.chance.choice(_BRACKETS)
                return opening * times + self.value(3) + closing * times
            case 9:
                values = [self.value(depth + 1) for _ in range(self.chance.randint(0, 3))]
                return f"[{self.space()}{','.join(values)}]"
            case _:
                # Without replacement, unless a key is to come twice.
                keys = self.chance.sample(_KEYS[:5], self.chance.randint(0, 3))
                if self.chance.random() < self.bad_ratio:
                    keys += self.chance.choices(_KEYS, k=2)
                members = [(key, self.value(depth + 1)) for key in keys]
                return self.object(members)

    def object(self, members: Sequence[tuple[str, str]]) -> str:
        written = [f'{self.space()}"{key}"{self.space()}:{self.space()}{text}' for key, text in members]
        return f"{{{','.join(written)}{self.space()}}}"


# ── events of the four formats, as members and their texts ────────────────────────────────────────────

Members = dict[str, str]

_IDS = [f"o-{FRESH}", f"p-{FRESH}", f"é-{FRESH}", f"\U0001f980{FRESH}"]
_TENANTS = (*["acme"] * 6, "globex", "nobody")
_TYPES = (*["anything"] * 5, "order.created", "no.such")
_PRODUCERS = ("shop", "", "x" * 256, "%(a)s")
_TIMES = (
    "2026-11-22T10:00:00Z",
    "2026-11-22t10:00:00.123456789+01:00",
    "0001-01-02T00:00:00Z",
    "9999-12-30T00:00:00Z",
)
_BAD_TIMES = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9-12:00", "1900-02-29T00:00:00Z", "2026-11-22", "")


def _maybe(chance: random.Random, **members: Callable[[], str]) -> Members:
    return {name: text() for name, text in members.items() if chance.random() < 0.6}


def _quoted(chance: random.Random, *texts: str) -> Callable[[], str]:
    return lambda: json.dumps(chance.choice(texts), ensure_ascii=chance.random() < 0.5)


def _time(writer: Writer) -> Callable[[], str]:
    return lambda: f'"{writer.one_of(_TIMES, _BAD_TIMES)}"'


def _payload(writer: Writer) -> str:
    return writer.chance.choice(['{"total": 1}', '{"total":-1}', "null", *["any"] * 12]).replace(
        "any", writer.value()
    )


def native(writer: Writer) -> Members:
    chance = writer.chance
    return {
        "tenant_id": _quoted(chance, *_TENANTS)(),
        "event_type": _quoted(chance, *_TYPES)(),
        "payload": _payload(writer),
    } | _maybe(
        chance,
        id=_quoted(chance, *_IDS),
        producer=_quoted(chance, *_PRODUCERS),
        occurred_at=_time(writer),
        schema_version=lambda: writer.one_of(["1", "null", "2"], ["0", '"1"', "1.0", "1e0"]),
        x=writer.value,
    )


def cloud_event(writer: Writer) -> Members:
    chance = writer.chance
    return {
        "specversion": writer.one_of(['"1.0"'], ["1.0", '"0.3"']),
        "id": _quoted(chance, *_IDS)(),
        "source": _quoted(chance, "shop", "/é", "urn:a")(),
        "type": _quoted(chance, *_TYPES)(),
        "tenantid": _quoted(chance, *_TENANTS)(),
        "data": _payload(writer),
    } | _maybe(
        chance,
        time=_time(writer),
        datacontenttype=lambda: writer.one_of(
            ["null", '"application/json"', '"application/json; charset=utf-8"'], ['"text/plain"', "1"]
        ),
        schemaversion=lambda: writer.one_of(["1", '"2"'], ["0", '"x"']),
        data_base64=lambda: writer.one_of(["null"], ['"AA=="']),
        traceparent=writer.string,
        x=writer.value,
    )


def pulse(writer: Writer) -> Members:
    chance = writer.chance
    return {
        chance.choice(["tenant_id", "tenant"]): _quoted(chance, *_TENANTS)(),
        "product_sku": writer.string(),
        "used_amount": writer.number(),
        chance.choice(["use_unity", "use_unit"]): _quoted(chance, "GB", "MB/sec")(),
    } | _maybe(chance, id=_quoted(chance, *_IDS), occurred_at=_time(writer), x=writer.value)


def _changed(event: Members, writer: Writer) -> list[tuple[str, str]]:
    """The event's members with one gone, repeated, renamed, or of another value."""
    members = list(event.items())
    place = writer.chance.randrange(len(members))
    name, text = members[place]
    members[place : place + 1] = writer.chance.choice(
        [[], [(name, text)] * 2, [(name.upper(), text)], [(name, f"[{text}]")], [(name, writer.value())]]
    )
    return members


def _damaged(body: bytes, chance: random.Random) -> bytes:
    """The bytes with a few of them replaced, gone or added."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(body))
        body = (
            body[:at] + chance.randbytes(chance.randint(0, 2)) + body[at + chance.choice([0, 0, 1, 1, 2]) :]
        )
    return body[: chance.choice([len(body)] * 4 + [chance.randint(0, len(body))])]


def _body(chance: random.Random) -> tuple[bytes, bool]:
    """A body, and whether it is sound."""
    writer = Writer(chance)
    event = chance.choice([native, native, cloud_event, pulse])(writer)
    members = list(event.items())
    chance.shuffle(members)
    sound = writer.object(members).encode("utf-8", "surrogatepass")
    match chance.randrange(12):
        case 0:
            return writer.object(_changed(event, writer)).encode("utf-8", "surrogatepass"), False
        case 1:
            return _damaged(sound, chance), False
        case 2:
            odd = [
                b"\xef\xbb\xbf" + sound,
                sound.decode("utf-8", "replace").encode("utf-16"),
                chance.randbytes(20),
            ]
            return chance.choice(
                [*odd, writer.value().encode("utf-8", "surrogatepass"), b"[%b]" % sound]
            ), False
        case _:
            return sound, writer.sound


# ── attributes, and all of it together ────────────────────────────────────────────────────────────────

_ODD_TEXTS = ("", "\0", "\ud800", "acme", "1", "é", "\U0001f980", "\x1b[2J", "a\r\nb", "\ufffe", "x" * 300)


def _strangers(chance: random.Random) -> dict[str, Attribute]:
    names = chance.choices(
        ["tenant_id", "event_type", "message_id", "x", "y", "z", *_ODD_TEXTS], k=chance.randint(1, 2)
    )
    values: list[Attribute] = [*_ODD_TEXTS, b"", b"\0", chance.randbytes(5)]
    return {name: chance.choice(values) for name in names}


def _of_an_event(writer: Writer) -> dict[str, Attribute]:
    chance = writer.chance
    optional: dict[str, Attribute] = {
        "message_id": chance.choice(_IDS),
        "producer": chance.choice(_PRODUCERS),
        "occurred_at": writer.one_of(_TIMES, _BAD_TIMES),
        "schema_version": writer.one_of(["1", "2"], ["x", "1.0"]),
        "x": chance.choice(["", "a\r\nb", "\U0001f980", "5"]),
    }
    named: dict[str, Attribute] = {
        "tenant_id": chance.choice(_TENANTS),
        "event_type": chance.choice(_TYPES),
    }
    return named | {name: value for name, value in optional.items() if chance.random() < 0.5}


def sending_of(seed: int) -> Sending:
    """Make the message that a seed stands for."""
    chance = random.Random(seed)
    receive_count = chance.choice([1] * 8 + [2, 3, 2**31 - 1])
    if chance.random() < 0.2:
        writer = Writer(chance)
        text = writer.space() + _payload(writer) + writer.space()
        body = text.encode("utf-8", "surrogatepass")
        return Sending(body, _of_an_event(writer), receive_count, writer.sound)
    body, sound = _body(chance)
    if chance.random() < 0.1:
        return Sending(body, _strangers(chance), receive_count)
    return Sending(body, {}, receive_count, sound)


sendings = st.integers(0, 2**63).map(sending_of)
batches = st.lists(sendings, min_size=1, max_size=4) | st.lists(sendings, min_size=12, max_size=30)
