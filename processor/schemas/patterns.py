r"""Explains why a pattern can't be run, and finds suspicious patterns.

The engine works in linear time. Look-around and back-references need backtracking, where a short string can
take a day.
"""

import json
import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import jsonschema_rs

from processor.schemas.wording import shortened

LARGEST_BYTES = 64 * 1024 * 1024
_INSTEAD_MAX = 400
_GROUPS_MAX = 100

_TOKEN = re.compile(
    r"(?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<escape>\\(?:[pP]\{[^}]*\}|u\{[^}]*\}|u[0-9a-fA-F]{4}|k<[^>]*>|.))"
    r"|(?P<open>\((?:\?(?:<?[=!]|[:>#]|P?<\w+>|P=|[a-zA-Z-]+[:)]?)?)?)|(?P<close>\))"
    r"|(?P<repeat>\{[0-9]+(?:,[0-9]*)?\}|[*+?])|(?P<other>.)",
    re.DOTALL,
)
_ANYTHING = r"(?:\.|\[\\s\\S\]|\[\\S\\s\])(?:[*+]|\{[01],\})"
_LOOK = {"(?=": "look-ahead", "(?!": "look-ahead", "(?<=": "look-behind", "(?<!": "look-behind"}
_CULPRITS = (
    (r"\\[1-9]|\\k<.*|\(\?P=", "a back-reference, which is not supported", "write out the alternatives"),
    (r"\(\?>", "an atomic group", "write (?:"),
    (r"\(\?#", "a comment", "use $comment"),
    (r"\\Z", "not a supported escape", "write $"),
    (r"\\h", "not a supported escape", "write [ \\t]"),
    (r"\\R", "not a supported escape", "write (?:\\r\\n|\\n|\\r)"),
    (r"\\e", "not a supported escape", "write \\x1b"),
    (r"\\a", "not a supported escape", "write \\x07"),
    (r"\\0", "not a supported escape", "write \\x00"),
    (
        r"\\u[dD][89a-fA-F]..|\[.*\\u[dD][89a-fA-F].*",
        "half of a surrogate pair",
        "write the whole character, such as \\u{1F600}",
    ),
    (r"\[\^\]", "an empty character class here", "write [\\s\\S]"),
    (r"\[\]", "an empty character class", 'remove it, or write "not": {}'),
    (r"\[.*\\b.*\]", "a character class with \\b", "write \\x08 for the backspace"),
    (
        r"\[.*(?:\\[dDwWsS]-[^\]]|-\\[dDwWsS]).*\]",
        "a range from or to a character class",
        "move the - to the end, or write \\-",
    ),
    (r"\[.*--.*\]", "a character class with --", "write one -, at the end of the class"),
    (r"\{", "not a valid repetition", "write \\{ for the character, or put a number before the comma"),
    (
        r"\\[^dDwWsSbBnrtfvxupPcAzUk\W_]|\\[^\x00-\x7f]",
        "not a supported escape",
        "write the character without \\",
    ),
)


class _Token(NamedTuple):
    start: int
    text: str
    depth: int
    kind: str


def refusal(pattern: str, *, of_names: bool = False) -> str:
    """Return why the library can't run a pattern, which is for member names (`of_names`) or for strings."""
    tokens = list(_tokens(pattern))
    for token in tokens:
        if token.text in _LOOK:
            return (
                f"{_place(pattern, token)} is {_LOOK[token.text]}: patterns are run in linear time, which no "
                f"look-around can be; {_instead(tokens, of_names=of_names)}"
            )
        for culprit, what, instead in _CULPRITS:
            if token.kind != "close" and re.fullmatch(culprit, token.text, re.DOTALL):
                return f"{_place(pattern, token)} is {what}; {instead}"
    if _is_too_large(pattern):
        return (
            f"the pattern {shortened(pattern)} is too large with its repetitions expanded; "
            "limit the length with minLength and maxLength, and repeat less"
        )
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"the pattern {shortened(pattern)} is not a valid regular expression: {error}"
    return f"the pattern {shortened(pattern)} is not a valid regular expression of ECMA-262"


def remarks(pattern: str) -> Iterator[tuple[Literal["warning", "note"], str]]:
    """Yield "warning" or "note", and a message with advice, for each suspicious part of a usable pattern."""
    if re.fullmatch(r"/.*/[gimsuy]*", pattern, re.DOTALL) and len(pattern) > 1:
        yield "warning", "the slashes are part of the pattern; leave them out"
    for token in _tokens(pattern):
        if token.kind == "set" and "[:" in token.text:
            what = "not a supported character class; write a-z, 0-9 and so on"
            yield "warning", f"{shortened(token.text)} is {what}"
        elif token.text in (r"\<", r"\>"):
            what = f"a word boundary here; write {token.text[1]} for the character"
            yield "warning", f"{token.text} is {what}"
    ends = _ends(pattern)
    if ends == {(False, False)} and not re.fullmatch(r"\.|\\[A-Z]|\[[^\]]*\]|\[\^[^\]]*\]\+?|\\S\+", pattern):
        yield "warning", "the pattern has no ^ and no $, so it matches anywhere in the string; write ^(?:…)$"
    elif len(ends) > 1 and all(any(end) for end in ends):
        yield "warning", "^ and $ apply to one alternative each, because | binds last; write ^(?:…|…)$"
    elif ends != {(True, True)}:
        yield "note", "the pattern is not anchored at both ends: any characters may precede or follow"


def _tokens(pattern: str) -> Iterator[_Token]:
    depth = 0
    for found in _TOKEN.finditer(pattern):
        kind = found.lastgroup or "other"
        depth -= kind == "close"
        yield _Token(found.start(), found[0], depth, kind)
        depth += kind == "open" and not found[0].endswith(")")


def _ends(pattern: str, level: int = 0) -> set[tuple[bool, bool]]:
    """Return, for each alternative, whether its start and its end are anchored or deliberately open."""
    ends = set()
    for branch in _alternatives(re.sub(r"^\(\?[a-zA-Z]+\)", "", pattern)):
        tokens = list(_tokens(branch))
        if level < _GROUPS_MAX and len(tokens) > 1 and _is_one_group(tokens):
            ends |= _ends(branch[len(tokens[0].text) : -1], level + 1)
            continue
        begin = re.match(rf"\(*(?:\?:)?\(*(?:\^|\\A|{_ANYTHING})", branch)
        end = re.search(rf"(?:(?<!\\)(?:\\\\)*(?:\$|{_ANYTHING}\??)|\\z)\)*$", branch)
        ends.add((begin is not None, end is not None))
    return ends


def _is_one_group(tokens: list[_Token]) -> bool:
    return (
        tokens[0].kind == "open"
        and tokens[0].text not in _LOOK
        and tokens[-1].kind == "close"
        and all(token.depth for token in tokens[1:-1])
    )


def _alternatives(pattern: str) -> list[str]:
    bars = [token.start for token in _tokens(pattern) if token.text == "|" and not token.depth]
    return [pattern[begin + 1 : end] for begin, end in zip([-1, *bars], [*bars, len(pattern)], strict=True)]


def _instead(tokens: list[_Token], *, of_names: bool) -> str:
    asked = _split_look_around(tokens)
    if asked is None:
        return 'split it into patterns under "allOf" and "not": {"pattern": …}'
    wanted, barred = asked
    rule: dict[str, object] = {}
    if len(wanted) == 1:
        rule["pattern"] = wanted[0]
    elif wanted:
        rule["allOf"] = [{"pattern": each} for each in wanted]
    if barred:
        rule["not"] = {"pattern": "|".join(barred)}
    text = json.dumps(rule, ensure_ascii=False)
    if len(text) > _INSTEAD_MAX:
        return 'write several patterns under "allOf", and forbidden ones under "not"'
    if of_names:
        return f'constrain names by "propertyNames": {text}, and values by "additionalProperties"'
    return f"write instead {text[1:-1]}"


def _split_look_around(tokens: list[_Token]) -> tuple[list[str], list[str]] | None:
    """Return the patterns that must and must not match; None: look-around is not only at the ends."""
    if tokens[0].text != "^" or any(token.text == "|" and not token.depth for token in tokens):
        return None
    wanted: list[str] = []
    barred: list[str] = []
    middle = tokens[1:]
    while middle and middle[0].text in ("(?=", "(?!"):
        inner, middle = _group(middle)
        (wanted if inner[0].text == "(?=" else barred).append("^" + _grouped(inner))
    tail = middle[-1:] if middle and middle[-1].text == "$" else []
    if tail and middle[-2:-1] and middle[-2].kind == "close":
        begin = max(at for at, token in enumerate(middle[:-2]) if token.depth == middle[-2].depth)
        opened = middle[begin].text
        if opened in ("(?<=", "(?<!"):
            inner, middle = middle[begin:-1], [*middle[:begin], *tail]
            (wanted if opened == "(?<=" else barred).append(_grouped(inner) + "$")
    rest = "".join(token.text for token in middle)
    if rest not in ("", ".*"):
        wanted.append("^" + rest)
    if any(_LOOK.keys() & {token.text for token in _tokens(each)} for each in wanted + barred):
        return None
    return wanted, barred


def _group(tokens: list[_Token]) -> tuple[list[_Token], list[_Token]]:
    end = next(
        (at for at, each in enumerate(tokens) if at and each.depth <= tokens[0].depth), len(tokens) - 1
    )
    return tokens[: end + 1], tokens[end + 1 :]


def _grouped(group: list[_Token]) -> str:
    inner = "".join(token.text for token in group[1:-1])
    return f"(?:{inner})" if len(_alternatives(inner)) > 1 else inner


def _is_too_large(pattern: str) -> bool:
    try:
        jsonschema_rs.Draft202012Validator(
            {"pattern": pattern}, pattern_options=jsonschema_rs.RegexOptions(size_limit=LARGEST_BYTES)
        )
    except ValueError:
        return False
    return True


def _place(pattern: str, token: _Token) -> str:
    return f"{shortened(token.text)} at character {token.start + 1} of the pattern {shortened(pattern)}"
