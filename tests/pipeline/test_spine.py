"""The five lines that the program is about, in one thread and without I/O."""

import pytest

from processor.errors import StoreUnavailable
from processor.pipeline.pipeline import once
from processor.sources.memory import MemorySource
from tests.builders import a_body
from tests.pipeline.harness import StubStore, schemas_of_acme


def test_the_spine_receives_validates_saves_and_only_then_settles() -> None:
    source = MemorySource()
    source.send(a_body())
    depth_at_save = []
    store = StubStore(before_save=lambda: depth_at_save.append(source.depth()))

    settlements = once(source, schemas_of_acme(), store, limit=10, wait_s=0)

    assert [settlement.outcome for settlement in settlements] == ["stored"]
    assert depth_at_save == [{"visible": 0, "in_flight": 1, "delayed": 0}]
    assert source.depth() == {"visible": 0, "in_flight": 0, "delayed": 0}


def test_a_save_that_fails_settles_nothing() -> None:
    source = MemorySource()
    source.send(a_body())

    def fail() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        once(source, schemas_of_acme(), StubStore(before_save=fail), limit=10, wait_s=0)

    assert source.depth() == {"visible": 0, "in_flight": 1, "delayed": 0}
