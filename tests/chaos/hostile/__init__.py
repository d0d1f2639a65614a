"""What a hostile tenant does, and a client without any key: one process for each attack.

    HOSTILE_TARGET='{"http": 8090, ...}' python -m tests.chaos.hostile http_idle

Attackers come from addresses of their own (127.0.0.2 and more), so that a share for each address can tell
them from their neighbours. They are as cheap as they can be, since they share the machine with whom they
attack.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Target:
    """Where everything answers, what key and logins the tenant `mallory` has, and from where it comes."""

    http: int
    grpc: int
    key: str
    queue_url: str
    database_url: str
    other_database_url: str
    addresses: tuple[str, ...] = ("127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5")


Attack: TypeAlias = Callable[[Target], Awaitable[None]]
