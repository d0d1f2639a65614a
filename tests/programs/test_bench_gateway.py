"""The benchmark of the gateway counts what it says: each accepted pulse is one row, or there is no figure."""

from collections.abc import Iterator

import pytest

from tests.bench import gateway
from tests.bench.faults import AuditFailed
from tests.bench.figures.gateway_report import markdown
from tests.bench.figures.rounds import Figures
from tests.bench.gateway import GATEWAY, PLAIN, Gateways, Sustained, contend, sustain
from tests.bench.ground import Ground, open_ground
from tests.bench.race import Race


@pytest.fixture(scope="module")
def here() -> Iterator[Ground]:
    with open_ground("own") as opened:
        yield opened


def test_each_accepted_pulse_is_a_row(here: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "WARM_UP_S", 0.2)

    one = sustain(here, 100, 1, tenants=20)

    assert (one.sent, one.accepted, one.stored, one.lost) == (100, 100, 100, 0)
    assert one.delay_ms["p50"] > 0
    assert one.cpu_us["gateway"] > 0


def test_who_says_yes_without_the_queue_gets_no_figure(here: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "WARM_UP_S", 0.2)
    depth = here.queue.depth
    # By one is not enough: what was still on its way at the end may be on the queue without an answer.
    monkeypatch.setattr(here.queue, "depth", lambda url: depth(url) // 2)

    with pytest.raises(AuditFailed, match="has said yes to"):
        contend(GATEWAY, 0.3).run(here, 0)


def test_the_tables_are_markdown_with_ratios_to_the_gateway() -> None:
    delays = {"p50": 1.0, "p95": 2.0, "p99": 3.0, "max": 4.0}
    cpu = dict.fromkeys(("gateway", "processor", "database", "queue", "load"), 10.0)
    figures = {GATEWAY: Figures(1, 4000, 0.2), PLAIN: Figures(1, 400, 2.0)}
    found = Gateways([Sustained(2000, 60, 10, 10, 2000.0, 9, delays, 0.1, cpu)], Race([figures]))

    said = markdown(found)

    assert "| 2,000 for 60 s | 10 | 2,000 | 1.0 | 2.0 | 3.0 | 4.0 | 1 | 10 |" in said
    assert "| 400 | 0.10 | 2,000 |" in said
