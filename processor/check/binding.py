"""What is bound to which tenants, so that nobody believes in a wall that is not there."""

from collections.abc import Sequence

from processor.check import Finding, judge, listed, tell
from processor.errors import SettingsError
from processor.settings import RunSettings
from processor.validation.tenant_bindings import ANY_SENDER, UNBOUND, Bindings


def bindings_of(settings: RunSettings) -> tuple[Bindings, list[Finding]]:
    """Read what the settings bind; where they contradict, nothing, and a finding that says so."""
    try:
        return Bindings.of(settings), []
    except SettingsError as error:
        advice = "no process starts with these settings"
        return UNBOUND, [judge("queue binding", str(error), fine=False, advice=advice)]


def judge_binding(bindings: Bindings, registered: Sequence[str]) -> Finding:
    """Say what the settings bind; a bound tenant that is not among those registered is worth a word."""
    unknown = sorted(_named(bindings) - set(registered))
    return tell(
        "queue binding",
        _words(bindings),
        note=bool(unknown),
        advice=f"not registered, so their events are rejected: {listed(unknown)}; processor tenant add, "
        "or mend the setting",
    )


def _words(bindings: Bindings) -> str:
    if not bindings.any:
        return "none: a body may name any tenant"
    words = []
    if bindings.queue_tenants is not None:
        words.append(f"queue {bindings.queue}: {listed(sorted(bindings.queue_tenants))}")
    if bindings.sender_tenants is not None:
        senders = dict(bindings.sender_tenants)
        others = senders.pop(ANY_SENDER, frozenset())
        rest = "any tenant" if others is None else listed(sorted(others))
        words.append(f"senders with tenants of their own: {len(senders)}")
        words[-1] += f", all others: {rest}" if rest else ", all others refused"
    return "; ".join(words)


def _named(bindings: Bindings) -> set[str]:
    named = set(bindings.queue_tenants or ())
    for tenants in (bindings.sender_tenants or {}).values():
        named |= tenants or set()
    return named
