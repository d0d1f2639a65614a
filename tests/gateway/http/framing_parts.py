"""Raw requests that were made to be read in two ways, and what is to be answered to each of them."""

PULSE = b'{"tenant_id": "acme", "product_sku": "disk", "used_amount": 1.5, "use_unity": "GB"}'
ALIVE = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"


def a_post(*fields: bytes, body: bytes = b"", line: bytes = b"POST /ingest HTTP/1.1") -> bytes:
    """A request of these fields and no others but its type."""
    return b"\r\n".join([line, b"content-type: application/json", *fields, b"", body])


def a_whole_post(*fields: bytes, body: bytes = PULSE) -> bytes:
    return a_post(b"host: a", b"content-length: %d" % len(body), *fields, body=body)


def in_chunks(*lines: bytes, fields: tuple[bytes, ...] = (), coding: bytes = b"chunked") -> bytes:
    """A request whose body has these lines, each with its line end."""
    body = b"".join(line + b"\r\n" for line in lines)
    return a_post(b"host: a", b"transfer-encoding: " + coding, *fields, body=body)


SIZE = b"%x" % len(PULSE)
WHOLE_CHUNK = (SIZE, PULSE, b"0", b"")

TAKEN = {
    "plain": a_whole_post(),
    "upgrade": a_whole_post(
        b"connection: Upgrade, HTTP2-Settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"
    ),
    "upgrade to a websocket": a_whole_post(b"connection: upgrade", b"upgrade: websocket"),
    "upgrade in chunks": in_chunks(*WHOLE_CHUNK, fields=(b"connection: upgrade", b"upgrade: x")),
    "chunks": in_chunks(*WHOLE_CHUNK),
    "chunks in capitals": in_chunks(SIZE.upper(), *WHOLE_CHUNK[1:], coding=b"Chunked"),
    "chunks with leading zeros": in_chunks(b"000" + SIZE, *WHOLE_CHUNK[1:]),
    "chunk extension": in_chunks(SIZE + b'; a=b;c="d;e"', *WHOLE_CHUNK[1:]),
    "trailers": in_chunks(SIZE, PULSE, b"0", b"x-a: b", b"connection: close", b"content-length: 5", b""),
    "empty lines before": b"\r\n\r\n" + a_whole_post(),
    "absolute target": a_post(
        b"host: b", b"content-length: %d" % len(PULSE), body=PULSE, line=b"POST http://a:80/ingest HTTP/1.1"
    ),
    "host with port": a_post(b"host: [::1]:8090", b"content-length: %d" % len(PULSE), body=PULSE),
    "spaces around a value": a_post(b"host:\ta \t", b"content-length:  %d " % len(PULSE), body=PULSE),
    "bytes beyond ascii in a value": a_whole_post(b"x-a: \xc3\xa9"),
}
"""What is one request, answered by 202, after which the connection goes on."""

REFUSED = {
    "three empty lines before": (b"\r\n" * 3 + a_whole_post(), 400),
    "nothing but empty lines": (b"\r\n" * 30_000, 400),
    "129 fields": (a_post(*[b"a: b"] * 127, b"host: a"), 431),
    "no host": (a_post(b"content-length: 2", body=b"{}"), 400),
    "two hosts": (a_post(b"host: a", b"host: b"), 400),
    "two equal hosts": (a_post(b"host: a", b"Host: a"), 400),
    "host with a path": (a_post(b"host: a/b"), 400),
    "host with a user": (a_post(b"host: u@a"), 400),
    "host with a space": (a_post(b"host: a b"), 400),
    "host list": (a_post(b"host: a, b"), 400),
    "http 0.9": (b"GET /livez\r\n", 400),
    "http 0.9 by name": (a_post(b"host: a", line=b"GET /livez HTTP/0.9"), 505),
    "http 2": (a_post(b"host: a", line=b"GET /livez HTTP/2.0"), 505),
    "http 2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "http 1.2": (a_post(b"host: a", line=b"GET /livez HTTP/1.2"), 505),
    "http 1.10": (a_post(b"host: a", line=b"GET /livez HTTP/1.10"), 400),
    "http in small letters": (a_post(b"host: a", line=b"GET /livez http/1.1"), 400),
    "rtsp": (a_post(b"host: a", b"content-length: 2", line=b"POST /ingest RTSP/1.0", body=b"{}"), 400),
    "two spaces in the line": (a_post(b"host: a", line=b"GET  /livez HTTP/1.1"), 400),
    "tab in the line": (a_post(b"host: a", line=b"GET\t/livez HTTP/1.1"), 400),
    "space at the line's end": (a_post(b"host: a", line=b"GET /livez HTTP/1.1 "), 400),
    "space before the line": (a_post(b"host: a", line=b" GET /livez HTTP/1.1"), 400),
    "method that is none": (a_post(b"host: a", line=b"G(T /livez HTTP/1.1"), 400),
    "target with a fragment": (a_post(b"host: a", line=b"GET /livez#a HTTP/1.1"), 400),
    "target without a slash": (a_post(b"host: a", line=b"GET livez HTTP/1.1"), 400),
    "target of another scheme": (a_post(b"host: a", line=b"GET ftp://a/livez HTTP/1.1"), 400),
    "target with a user": (a_post(b"host: a", line=b"GET http://u@a/livez HTTP/1.1"), 400),
    "target without a host": (a_post(b"host: a", line=b"GET http:///livez HTTP/1.1"), 400),
    "target with a NUL": (a_post(b"host: a", line=b"GET /livez\x00 HTTP/1.1"), 400),
    "target beyond ascii": (a_post(b"host: a", line=b"GET /\xc3\xa9 HTTP/1.1"), 400),
    "authority": (a_post(b"host: a", line=b"CONNECT a:443 HTTP/1.1"), 400),
    "authority for a post": (a_post(b"host: a", line=b"POST a:443 HTTP/1.1"), 400),
    "asterisk for a post": (a_post(b"host: a", line=b"POST * HTTP/1.1"), 400),
    "coding before chunked": (in_chunks(b"0", b"", coding=b"gzip, chunked"), 501),
    "codings in two lines": (
        in_chunks(b"0", b"", coding=b"gzip", fields=(b"transfer-encoding: chunked",)),
        501,
    ),
    "chunked twice": (in_chunks(b"0", b"", coding=b"chunked, chunked"), 400),
    "chunked in two lines": (in_chunks(b"0", b"", fields=(b"transfer-encoding: chunked",)), 400),
    "chunked not last": (in_chunks(b"0", b"", coding=b"chunked, gzip"), 400),
    "no chunked": (in_chunks(b"0", b"", coding=b"gzip"), 400),
    "identity": (in_chunks(b"0", b"", coding=b"identity"), 400),
    "chunked with a tab": (in_chunks(b"0", b"", coding=b"\x0bchunked"), 400),
    "chunked with a parameter": (in_chunks(b"0", b"", coding=b"chunked;a=b"), 400),
    "empty coding": (in_chunks(b"0", b"", coding=b""), 400),
    "chunked in http 1.0": (
        a_post(b"host: a", b"transfer-encoding: chunked", body=b"0\r\n\r\n", line=b"POST /ingest HTTP/1.0"),
        400,
    ),
    "chunked and a length": (in_chunks(b"0", b"", fields=(b"content-length: 5",)), 400),
    "a length and chunked": (
        a_post(b"host: a", b"content-length: 5", b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    "two lengths": (a_post(b"host: a", b"content-length: 2", b"content-length: 3", body=b"{}"), 400),
    "two equal lengths": (a_post(b"host: a", b"content-length: 2", b"content-length: 2", body=b"{}"), 400),
    "length list": (a_post(b"host: a", b"content-length: 2, 2", body=b"{}"), 400),
    "length with a plus": (a_post(b"host: a", b"content-length: +2", body=b"{}"), 400),
    "length with a minus": (a_post(b"host: a", b"content-length: -2", body=b"{}"), 400),
    "length in hex": (a_post(b"host: a", b"content-length: 0x2", body=b"{}"), 400),
    "length with a space": (a_post(b"host: a", b"content-length: 2 2", body=b"{}"), 400),
    "length with an underscore": (a_post(b"host: a", b"content-length: 1_0", body=b"{}"), 400),
    "length in other digits": (a_post(b"host: a", "content-length: \u0662".encode(), body=b"{}"), 400),
    "empty length": (a_post(b"host: a", b"content-length:", body=b"{}"), 400),
    "endless length": (a_post(b"host: a", b"content-length: " + b"9" * 40, body=b"{}"), 400),
    "space before the colon": (a_post(b"host: a", b"content-length : 2", body=b"{}"), 400),
    "folded field": (a_post(b"host: a", b"x-a: b", b" c"), 400),
    "folded first field": (b"POST /ingest HTTP/1.1\r\n host: a\r\nhost: b\r\n\r\n", 400),
    "no colon": (a_post(b"host: a", b"x-a"), 400),
    "no name": (a_post(b"host: a", b": b"), 400),
    "name that is none": (a_post(b"host: a", b"x\x7fa: b"), 400),
    "name beyond ascii": (a_post(b"host: a", b"x\xe9: b"), 400),
    "NUL in a value": (a_post(b"host: a", b"x-a: b\x00c"), 400),
    "escape in a value": (a_post(b"host: a", b"x-a: b\x1bc"), 400),
    "bare CR in a value": (a_post(b"host: a", b"x-a: b\rcontent-length: 5"), 400),
    "bare LF in a value": (a_post(b"host: a", b"x-a: b\ncontent-length: 5"), 400),
    "bare LF at the head's end": (b"GET /livez HTTP/1.1\r\nhost: a\n\n", 400),
    "bare LF everywhere": (b"GET /livez HTTP/1.1\nhost: a\n\n", 400),
    "CR CR LF": (b"GET /livez HTTP/1.1\r\r\nhost: a\r\n\r\n", 400),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
}
"""What is refused by its head: one answer, the end, and not a word on what comes behind it."""

BROKEN_BODIES = {
    "chunk size that is none": in_chunks(b"zz", b"{}", b"0", b""),
    "chunk size with 0x": in_chunks(b"0x2", b"{}", b"0", b""),
    "chunk size with a minus": in_chunks(b"-2", b"{}", b"0", b""),
    "chunk size with a plus": in_chunks(b"+2", b"{}", b"0", b""),
    "chunk size with a space": in_chunks(b"2 ", b"{}", b"0", b""),
    "chunk size after a space": in_chunks(b" 2", b"{}", b"0", b""),
    "empty chunk size": in_chunks(b"", b"{}", b"0", b""),
    "chunk size of too many digits": in_chunks(b"0" * 16 + b"2", b"{}", b"0", b""),
    "chunk size that overflows": in_chunks(b"f" * 17, b"{}", b"0", b""),
    "chunk longer than its size": in_chunks(b"1", b"{}", b"0", b""),
    "chunk shorter than its size": in_chunks(b"3", b"{}", b"0", b""),
    "bare LF after a size": in_chunks(b"2\n{}", b"0", b""),
    "bare LF after a chunk": in_chunks(b"2", b"{}\n0", b""),
    "bare CR after a size": in_chunks(b"2\r{}", b"0", b""),
    "LF in an extension": in_chunks(b"2;a=\n{}", b"0", b""),
    "endless extension": in_chunks(b"2;" + b"a" * 5000, b"{}", b"0", b""),
    "flood of chunks": in_chunks(*[b"1", b" "] * 2000, b"0", b""),
    "trailer that is none": in_chunks(b"2", b"{}", b"0", b"x-a", b""),
    "trailer with a bare LF": in_chunks(b"2", b"{}", b"0", b"x-a: b\nc", b""),
}
"""What is refused by its body: one answer, and the end."""
