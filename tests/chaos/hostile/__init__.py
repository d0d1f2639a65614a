"""Attacks by a hostile tenant, and by clients without a key: one process for each attack.

    HOSTILE_TARGET='{"http": 8090, ...}' python -m tests.chaos.hostile http_idle

Attackers have addresses of their own (127.0.0.2 and more), so that limits by address separate them from other
clients. They use as little CPU as possible, since they share the machine with their target.
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
