"""The check of tenant bindings: which tenants the settings allow on a queue and for a sender."""

from collections.abc import Sequence

from processor.check import Finding, judge, listed, tell
from processor.errors import SettingsError
from processor.settings import RunSettings
from processor.validation.tenant_bindings import ANY_SENDER, UNBOUND, Bindings


def bindings_of(settings: RunSettings) -> tuple[Bindings, list[Finding]]:
    """Read the bindings from the settings; contradictory settings give no bindings and a problem."""
    try:
        return Bindings.of(settings), []
    except SettingsError as error:
        advice = "correct the settings: no process starts with them"
        return UNBOUND, [judge("queue binding", str(error), fine=False, advice=advice)]


def judge_binding(bindings: Bindings, registered: Sequence[str]) -> Finding:
    """Describe the bindings, with a note for bound tenants that are not registered."""
    unknown = sorted(_named(bindings) - set(registered))
    return tell(
        "queue binding",
        _words(bindings),
        note=bool(unknown),
        advice=f"events of unregistered tenants are rejected: {listed(unknown)}; run processor tenant add, "
        "or correct the setting",
    )


def _words(bindings: Bindings) -> str:
    if not bindings.any:
        return "none: an event may name any tenant"
    words = []
    if bindings.queue_tenants is not None:
        words.append(f"queue {bindings.queue}: {listed(sorted(bindings.queue_tenants))}")
    if bindings.sender_tenants is not None:
        senders = dict(bindings.sender_tenants)
        others = senders.pop(ANY_SENDER, frozenset())
        rest = "any tenant" if others is None else listed(sorted(others))
        words.append(f"bound senders: {len(senders)}")
        words[-1] += f", other senders: {rest}" if rest else ", other senders are refused"
    return "; ".join(words)


def _named(bindings: Bindings) -> set[str]:
    named = set(bindings.queue_tenants or ())
    for tenants in (bindings.sender_tenants or {}).values():
        named |= tenants or set()
    return named
