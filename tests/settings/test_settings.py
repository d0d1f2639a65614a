"""Settings: bad ones are one clear line, secrets stay secret, the region can come from the queue's URL."""

import os
from pathlib import Path
from typing import Any

import pytest

from processor.errors import SettingsError
from processor.settings import (
    DatabaseSettings,
    DispatchSettings,
    GatewaySettings,
    PublisherSettings,
    RetentionSettings,
    RunSettings,
    Settings,
)
from processor.settings.loading import SettingsGroup

SECRET = "hunter2"
AWS_QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/events"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of this machine and no .env beside us."""
    ours = {name.upper() for name in Settings.model_fields} | {"AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_SQS"}
    for name in list(os.environ):
        if name.upper() in ours:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _error(monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WRITERS", "0"),
        ("WRITERS", "17"),
        ("WRITERS", "many"),
        ("WRITERS", "1.5"),
        ("RECEIVE_WAIT_S", "21"),
        ("VISIBILITY_TIMEOUT_S", "-1"),
        ("HTTP_PORT", "65536"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "chatty"),
        ("RETRY_WAIT_S_MAX", "nan"),
        ("KEY_RETENTION_DAYS", "0"),
        ("MESSAGE_RETENTION_DAYS", "34"),
        ("DUPLICATE_RETENTION_DAYS", "34"),
        ("REJECTION_RETENTION_DAYS", "-1"),
        ("REJECTION_RETENTION_DAYS", "1.5"),
        ("SQS_QUEUE_URL", "events"),
        ("SQS_QUEUE_URL", "https://sqs.eu-central-1.amazonaws.com"),
        ("SQS_QUEUE_URL", "https://[events"),
        ("DATABASE_URL", "mysql://user@host/database"),
        ("DATABASE_URL", "host=localhost"),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    message = _error(monkeypatch, **{name: value})

    assert f"{name}: " in message
    assert "\n" not in message
    assert "settings --template" in message


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = _error(monkeypatch, WRITERS="0", HTTP_PORT="-1")

    assert "WRITERS: " in message
    assert "HTTP_PORT: " in message


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (DatabaseSettings, "WRITERS"),
        (RunSettings, "GATEWAY_PORT"),
        (RunSettings, "USAGE_SINK_LINES_MAX"),
        (GatewaySettings, "WRITERS"),
        (DispatchSettings, "RECEIVERS"),
        (PublisherSettings, "BATCH_SIZE_MAX"),
    ],
)
def test_a_wrong_value_stops_the_commands_that_read_it_and_no_others(
    monkeypatch: pytest.MonkeyPatch, command: type[SettingsGroup], name: str
) -> None:
    message = _error(monkeypatch, **{name: "0.5x"})

    assert f"{name}: " in message
    command.load()


def test_the_settings_of_all_commands_together_are_all_settings() -> None:
    read_by_commands: list[type[SettingsGroup]] = [
        RunSettings,
        DispatchSettings,
        GatewaySettings,
        PublisherSettings,
        RetentionSettings,
    ]

    names = {name for group in read_by_commands for name in group.model_fields}
    assert names == Settings.model_fields.keys()
    assert not any(name.startswith("gateway") for name in RunSettings.model_fields)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://user:{SECRET}@host/database",
        # The standard library quotes what stands in brackets, and whole hosts with odd characters.
        f"postgresql://user:pass[{SECRET}]word@host/database",
        f"postgresql://user:{SECRET}\u2100@host/database",
    ],
)
def test_an_error_never_shows_a_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert SECRET not in _error(monkeypatch, DATABASE_URL=url)


def test_the_envelopes_of_a_queue_are_named_or_refused_with_what_was_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for known in ("sns", "eventbridge", "s3", "sns,eventbridge", "sns,s3", "none"):
        monkeypatch.setenv("UNWRAP", known)
        assert Settings.load().unwrap == known
    monkeypatch.setenv("UNWRAP", "sns, s3")

    with pytest.raises(SettingsError, match=r"UNWRAP: 'sns, s3' is no envelope .* expected one of: sns "):
        Settings.load()


def test_secrets_stay_out_of_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://user:{SECRET}@host/database")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)

    settings = Settings.load()

    assert SECRET not in repr(settings) + str(settings)
    assert SECRET in settings.need_database_url()
    assert settings.aws_client_options()["aws_session_token"] == SECRET


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")

    settings = Settings.load()

    assert settings == Settings.load(**{name: field.default for name, field in Settings.model_fields.items()})
    assert settings.aws_client_options() == {}


def test_an_unset_dependency_is_said_when_it_is_needed() -> None:
    settings = Settings.load()

    with pytest.raises(SettingsError, match="DATABASE_URL is not set"):
        settings.need_database_url()
    with pytest.raises(SettingsError, match="SQS_QUEUE_URL is not set"):
        settings.queue_name()


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("WRITERS=2\nSETTLERS=5\nNOT_OURS=1\n")
    monkeypatch.setenv("WRITERS", "4")

    settings = Settings.load()

    assert (settings.writers, settings.settlers, settings.receivers) == (4, 5, 3)


def test_a_file_that_is_no_text_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"WRITERS=\xff\n")

    with pytest.raises(SettingsError, match=r"\.env can't be read"):
        Settings.load()


def _options(**values: Any) -> dict[str, Any]:
    return Settings.load(**values).aws_client_options()


@pytest.mark.parametrize(
    ("host", "region", "own_endpoint"),
    [
        ("sqs.eu-central-1.amazonaws.com", "eu-central-1", False),
        ("sqs.us-gov-west-1.amazonaws.com", "us-gov-west-1", False),
        ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1", False),
        ("eu-west-1.queue.amazonaws.com", "eu-west-1", False),
        ("queue.amazonaws.com", "us-east-1", False),
        ("sqs-fips.us-east-2.amazonaws.com", "us-east-2", True),
        ("sqs.eu-west-3.api.aws", "eu-west-3", True),
        ("sqs-fips.us-west-2.api.aws", "us-west-2", True),
        ("vpce-0a1-b2c.sqs.eu-west-1.vpce.amazonaws.com", "eu-west-1", True),
        ("vpce-0a1-b2c-eu-west-1a.sqs.eu-west-1.vpce.amazonaws.com", "eu-west-1", True),
        ("sqs.ap-south-1.localhost.localstack.cloud:4566", "ap-south-1", True),
        ("localhost:4566/queue/eu-west-2", "eu-west-2", True),
        ("127.0.0.1:4566", None, True),
        ("sqs.example.com", None, True),
    ],
)
def test_a_queues_url_gives_its_region_and_an_endpoint_that_is_not_the_regions_own(
    host: str, region: str | None, own_endpoint: bool
) -> None:
    options = _options(sqs_queue_url=f"https://{host}/123456789012/events")

    assert options.get("region_name") == region
    assert options.get("endpoint_url") == (f"https://{host.partition('/')[0]}" if own_endpoint else None)


@pytest.mark.parametrize(
    ("name", "value", "region"),
    [
        ("AWS_REGION", "eu-west-1", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "us-east-1", "us-east-1"),
        ("AWS_ENDPOINT_URL", "https://sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ("AWS_ENDPOINT_URL_SQS", "https://vpce-1.sqs.us-east-1.vpce.amazonaws.com", "us-east-1"),
    ],
)
def test_a_region_that_contradicts_the_url_of_the_queue_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, region: str
) -> None:
    error = _error(monkeypatch, SQS_QUEUE_URL=AWS_QUEUE, **{name: value})

    assert f"SQS_QUEUE_URL is in the region eu-central-1, and {name} says {region}" in error
    assert "\n" not in error


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_ENDPOINT_URL"])
def test_a_region_that_agrees_or_an_endpoint_without_one_is_fine(name: str) -> None:
    local = {"aws_endpoint_url": "http://127.0.0.1:4566"}
    values = local if name == "AWS_ENDPOINT_URL" else {"aws_region": "eu-central-1"}

    assert _options(sqs_queue_url=AWS_QUEUE, **values)["region_name"] == "eu-central-1"


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION"])
def test_both_names_of_the_region_are_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "eu-west-1")

    assert _options()["region_name"] == "eu-west-1"


def test_the_queue_is_known_by_the_last_part_of_its_url() -> None:
    assert Settings.load(sqs_queue_url=AWS_QUEUE + "/").queue_name() == "events"


@pytest.mark.parametrize("name", ["MESSAGE", "DUPLICATE", "REJECTION"])
def test_no_age_may_be_below_that_of_the_keys(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("KEY_RETENTION_DAYS", "50")
    monkeypatch.setenv(f"{name}_RETENTION_DAYS", "50")
    assert getattr(Settings.load(), f"{name.lower()}_retention_days") == 50

    words = _error(monkeypatch, **{f"{name}_RETENTION_DAYS": "49"})

    assert f"{name}_RETENTION_DAYS: " in words
    assert "49 is below KEY_RETENTION_DAYS=50; expected 50 or more" in words
