"""One attack, until it is killed."""

import asyncio
import json
import os
import sys

from tests.chaos.hostile import Target
from tests.chaos.hostile.attacks import ATTACKS


async def _attack(name: str) -> None:
    await ATTACKS[name](Target(**json.loads(os.environ["HOSTILE_TARGET"])))


if __name__ == "__main__":
    os.nice(19)
    asyncio.run(_attack(sys.argv[1]))
