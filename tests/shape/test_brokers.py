"""A test without its broker says how to run it, and passes for nothing where brokers are required."""

import pytest

from tests.broker_servers import require


def test_a_missing_broker_skips_a_test_and_says_how_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKERS", raising=False)

    with pytest.raises(pytest.skip.Exception, match="needs a broker, which is not here; install it"):
        require("a broker", "install it")


def test_where_brokers_are_required_a_missing_one_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKERS", "required")

    with pytest.raises(pytest.fail.Exception, match="BROKERS=required"):
        require("a broker", "install it")
