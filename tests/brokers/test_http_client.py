"""What counts as a whole answer, and how much of one is read."""

import pytest

from processor.brokers.http_client import HEAD_BYTES_MAX, AnswerReader, HttpMalformed, HttpTrouble

TO_THE_END = b"HTTP/1.1 200 OK\r\nRetry-After: 7\r\nConnection: close\r\n\r\nhello"


def test_an_answer_may_end_with_the_connection_only_where_that_is_allowed() -> None:
    lax, strict = AnswerReader(until_close=True), AnswerReader()
    lax.feed(TO_THE_END)
    strict.feed(TO_THE_END)
    lax.feed(b"")

    assert lax.answer is not None
    assert (lax.answer.body, lax.answer.headers["retry-after"], lax.keep) == (b"hello", "7", False)
    with pytest.raises(HttpTrouble, match="before its answer was whole"):
        strict.feed(b"")


@pytest.mark.parametrize("head", [b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_answer_that_says_where_it_ends_must_come_to_its_end(head: bytes) -> None:
    reader = AnswerReader(until_close=True)
    reader.feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n5\r\nhel")

    with pytest.raises(HttpTrouble, match="before its answer was whole"):
        reader.feed(b"")


def test_an_early_hint_is_not_the_answer() -> None:
    reader = AnswerReader()
    reader.feed(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    hinted = reader.answer
    reader.feed(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    assert hinted is None
    assert reader.answer is not None
    assert (reader.answer.status, reader.answer.headers, reader.keep) == (202, {"content-length": "0"}, True)


def test_no_more_is_read_of_an_answer_than_shows_that_it_is_too_long() -> None:
    reader = AnswerReader(10, until_close=True)
    reader.feed(TO_THE_END)
    early = reader.answer
    reader.feed(b"x" * 6)

    assert early is None
    assert reader.answer is not None
    assert (len(reader.answer.body), reader.keep) == (11, False)


def test_a_head_without_an_end_is_not_read_on() -> None:
    reader = AnswerReader()
    for _ in range(HEAD_BYTES_MAX // 1024):
        reader.feed(b"X: " + b"x" * 1019 + b"\r\n" if reader._head_bytes else b"HTTP/1.1 200 OK\r\n")

    with pytest.raises(HttpMalformed, match="head"):
        reader.feed(b"X: " + b"x" * 2048)
