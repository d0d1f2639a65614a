"""Valid events that a scenario sends besides the load, with given ids."""

import random
from dataclasses import replace

from producers.fake.events import EventForm, encode, invent
from producers.publishers.outgoing import Outgoing
from tests.chaos.traffic.pulses import load_since


def an_extra_event(chance: random.Random, message_id: str, *, padding_bytes: int = 0) -> Outgoing:
    """Make up an event of a known tenant; `padding_bytes` of white space make its body large."""
    event = replace(invent(chance, "acme", "extra", 1, load_since()), message_id=message_id)
    outgoing = encode(event, EventForm.NATIVE)
    return replace(outgoing, body=outgoing.body + " " * padding_bytes)
