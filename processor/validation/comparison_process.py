"""The process in which two schemas are compared: what they are may cost time, memory or the process itself.

    stdin: both schemas ─▶ under the kernel's CPU limit ─▶ stdout: differences, then one verdict a line

What was written before its end counts: the library for proofs is young, and an overflowing stack ends it all.
"""

import resource
import sys
from contextlib import suppress

import msgspec

from processor.validation.compatibility import Asked, takes_all
from processor.validation.differences import differences
from processor.validation.schema_text import schema_value

CPU_S = 10
MEMORY_BYTES_MAX = 2 * 1024 * 1024 * 1024


class Pair(msgspec.Struct, frozen=True):
    """Two schemas: their definitions as text, and how each takes formats."""

    old: tuple[str, str]
    new: tuple[str, str]


def main() -> None:
    """Read a pair, and write what is known of it, as it becomes known."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        # Not everywhere.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    pair = msgspec.json.decode(sys.stdin.buffer.read(), type=Pair)
    old, new = (Asked(schema_value(text), formats) for text, formats in (pair.old, pair.new))
    _write(differences(old.definition, new.definition, formats=(old.formats, new.formats)))
    _write(takes_all(new, old))
    _write(takes_all(old, new))


def _write(value: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
