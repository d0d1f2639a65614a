"""All that can be set from outside, with bounds: environment variables, or a `.env` file beside you.

Each setting has a line in `.env-template`, and a test holds the two together.
"""

import os
import re
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from processor.brokers.aws_hosts import endpoint_of, region_of
from processor.brokers.source_url import SourceAddress, source_address
from processor.errors import SettingsError
from processor.foreign_settings import env_file_names, said_elsewhere, unknown_keys
from processor.setting_values import json_value, port_fits, producers_of, tenant_ids, tenants_of, url_parts

MIB = 1024 * 1024
DAYS_MAX = 36_500
KEY_DAYS_ADVISED = 28
"""A message may lie 14 days in a queue and, sent back from its dead-letter queue, 14 more."""

RATE_MAX = 1_000_000

UNWRAPS = ("sns", "eventbridge", "s3", "sns,eventbridge", "sns,s3", "none")
"""Whose envelopes may be around each event of a queue, the outer first; none: there are none."""

FOR_TESTS = frozenset({"DATABASE_URL_TEST", "RABBITMQ_URL_TEST"})
_ALIASES = frozenset({"AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_SQS"})


class Settings(BaseSettings):
    """One value per environment variable of the same name in capitals.

    Times end in `_s` (seconds) or `_ms`, sizes in `_bytes`; secrets are never printed by `repr`.
    """

    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: SecretStr | None = None
    sqs_queue_url: str | None = None
    source_url: SecretStr | None = None
    routing_key: str | None = None
    routing_key_tenant: str | None = None
    unwrap: str | None = None
    receive_count_max: int = Field(10, ge=4, le=1000)

    aws_endpoint_url: str | None = Field(
        None, validation_alias=AliasChoices("aws_endpoint_url_sqs", "aws_endpoint_url")
    )
    aws_region: str | None = Field(None, validation_alias=AliasChoices("aws_region", "aws_default_region"))
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    localstack_host: str | None = None

    sqs_client: Literal["lean", "boto3"] = "lean"
    receivers: int = Field(3, ge=1, le=64)
    writers: int = Field(1, ge=1, le=16)
    settlers: int = Field(3, ge=1, le=64)
    receive_wait_s: int = Field(20, ge=0, le=20)
    batch_size_max: int = Field(500, ge=1, le=5000)
    batch_bytes_max: int = Field(MIB, ge=64 * 1024)
    linger_ms: int = Field(0, ge=0, le=10_000)
    buffer_size_max: int = Field(2000, ge=10, le=100_000)
    buffer_bytes_max: int = Field(4 * MIB, ge=MIB)
    visibility_timeout_s: int = Field(60, ge=2, le=43_200)
    hold_s_max: int = Field(39_600, ge=10, le=43_000)

    queue_tenants: Annotated[frozenset[str] | None, NoDecode] = None
    sender_tenants: Annotated[Mapping[str, frozenset[str] | None] | None, NoDecode] = None

    body_bytes_max: int = Field(MIB, ge=1024, le=16 * MIB)
    json_depth_max: int = Field(64, ge=4, le=512)
    json_values_max: int = Field(100_000, ge=1000, le=10_000_000)

    database_timeout_s: int = Field(30, ge=1, le=600)
    retry_wait_s_max: float = Field(30.0, ge=0.05, le=600)
    stop_timeout_s: float = Field(22.0, ge=1, le=600)
    judge_timeout_s: float = Field(10.0, ge=0.5, le=600)

    # The keys' age before the others: their validator looks at it.
    key_retention_days: int = Field(35, ge=1, le=DAYS_MAX)
    message_retention_days: int | None = Field(None, ge=1, le=DAYS_MAX)
    duplicate_retention_days: int | None = Field(None, ge=1, le=DAYS_MAX)
    rejection_retention_days: int | None = Field(None, ge=1, le=DAYS_MAX)

    reject_alarm_share: float = Field(0.2, gt=0, le=1)
    reject_alarm_count_min: int = Field(50, ge=1, le=1_000_000)
    reject_alarm_window_s: int = Field(300, ge=10, le=86_400)
    storage_rejected_bytes: int = Field(2**30, ge=1, le=2**50)
    storage_alarm_bytes: int = Field(10 * 2**30, ge=1, le=2**60)

    usage_sink_url: SecretStr | None = None
    usage_sink_token: SecretStr | None = None
    usage_sink_lines_max: int = Field(1000, ge=1, le=10_000)
    usage_sink_amounts: Literal["number", "string"] = "number"
    usage_sink_timeout_s: float = Field(10.0, ge=0.1, le=300)
    usage_sink_refused_wait_s_max: float = Field(3600.0, ge=1, le=86_400)
    usage_dispatch_every_s: float = Field(60.0, ge=0.1, le=86_400)

    keep_to_one_core: Literal["auto", "on", "off"] = "auto"

    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=0, le=65_535)

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(8090, ge=0, le=65_535)
    gateway_grpc_port: int = Field(50_051, ge=0, le=65_535)
    gateway_probes_port: int = Field(8091, ge=0, le=65_535)
    gateway_keys: Literal["required", "off"] = "required"
    gateway_compat: Literal["usage-service"] | None = None
    gateway_answer: Literal["200", "202", "204"] = "202"
    reserved_producers: str = "platform,platform/*"
    gateway_keys_every_s: float = Field(5.0, ge=0.1, le=600)
    gateway_body_bytes_max: int = Field(4 * MIB, ge=1024, le=64 * MIB)
    gateway_items_max: int = Field(1000, ge=1, le=10_000)
    gateway_requests_max: int = Field(4000, ge=1, le=100_000)
    gateway_read_timeout_s: float = Field(10.0, ge=0.1, le=600)
    gateway_timeout_s: float = Field(5.0, ge=0.1, le=300)
    gateway_linger_ms: float = Field(2.0, ge=0, le=1000)
    gateway_senders: int = Field(8, ge=1, le=64)
    gateway_waiting_max: int = Field(10_000, ge=10, le=1_000_000)
    gateway_tenant_bytes: int = Field(2 * MIB, ge=1024, le=10**12)
    gateway_tenant_cpu: float = Field(0.25, gt=0, le=100)
    gateway_tenant_rate: float | None = Field(None, gt=0, le=RATE_MAX)
    gateway_tenant_burst: int | None = Field(None, ge=1, le=10_000_000)
    gateway_tenant_rates: Annotated[Mapping[str, float] | None, NoDecode] = None
    gateway_key: SecretStr | None = None
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("database_url")
    @classmethod
    def _a_postgresql_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and url_parts(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
            raise ValueError("expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE")
        return value

    @field_validator("sqs_queue_url")
    @classmethod
    def _a_queue_url(cls, value: str | None) -> str | None:
        if value is not None:
            parts = url_parts(value)
            if parts.scheme not in ("http", "https") or not parts.netloc or not parts.path.strip("/"):
                raise ValueError(
                    "expected a queue URL such as https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE"
                )
        return value

    @field_validator("source_url")
    @classmethod
    def _a_source_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            source_address(value.get_secret_value())
        return value

    @field_validator("unwrap")
    @classmethod
    def _known_envelopes(cls, value: str | None) -> str | None:
        if value not in (None, *UNWRAPS):
            raise ValueError(
                f"{value[:32]!r} is no envelope that we know; expected one of: {' '.join(UNWRAPS)}"
            )
        return value

    @field_validator("usage_sink_url")
    @classmethod
    def _a_sink_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        parts = url_parts(value.get_secret_value())
        if parts.scheme in ("kafka", "kafkas"):
            source_address(value.get_secret_value())
            return value
        if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits(parts):
            raise ValueError("expected http://HOST[:PORT]/PATH, https:// or kafka://HOST:PORT/TOPIC")
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "expected no user and no password in it; what the sink asks for goes to USAGE_SINK_TOKEN"
            )
        if not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("expected ASCII without spaces; write other characters as %XX")
        return value

    @field_validator("usage_sink_token", "gateway_key")
    @classmethod
    def _a_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("expected ASCII without spaces and line ends, as it goes into a header")
        return value

    @field_validator("queue_tenants", mode="before")
    @classmethod
    def _names_of_tenants(cls, value: object) -> object:
        return tenants_of(value) if isinstance(value, str) else value

    @field_validator("reserved_producers")
    @classmethod
    def _names_of_producers(cls, value: str) -> str:
        producers_of(value)
        return value

    @field_validator("sender_tenants", mode="before")
    @classmethod
    def _tenants_by_sender(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        entries = json_value(value)
        if not isinstance(entries, dict) or not entries:
            raise ValueError(
                'expected a JSON object with an entry at least, such as {"AROA...": ["acme"], "*": "*"}'
            )
        found: dict[str, frozenset[str] | None] = {}
        for sender, tenants in entries.items():
            try:
                found[sender] = None if tenants == "*" else tenant_ids(tenants)
            except ValueError as error:
                raise ValueError(f"the entry {sender[:64]!r}: {error}") from None
        return found

    @field_validator("gateway_tenant_rates", mode="before")
    @classmethod
    def _rates_by_tenant(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        rates = json_value(value)
        if not isinstance(rates, dict) or not rates:
            raise ValueError('expected a JSON object with an entry at least, such as {"acme": 500}')
        for tenant, rate in rates.items():
            tenant_ids([tenant])
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= RATE_MAX:
                raise ValueError(
                    f"the entry {tenant[:64]!r}: expected events per second, above 0 up to {RATE_MAX}"
                )
        return rates

    @field_validator("message_retention_days", "duplicate_retention_days", "rejection_retention_days")
    @classmethod
    def _no_shorter_than_keys(cls, value: int | None, info: ValidationInfo) -> int | None:
        # Absent where it is wrong itself, which is said anyway.
        least = info.data.get("key_retention_days", 0)
        if value is not None and value < least:
            raise ValueError(
                f"{value} is below KEY_RETENTION_DAYS={least}; expected {least} or more: what comes again "
                "after its row was removed is stored, and counted, a second time"
            )
        return value

    @model_validator(mode="after")
    def _one_region(self) -> "Settings":
        self.require_region(self.aws_region, _said_by("AWS_REGION", "AWS_DEFAULT_REGION"))
        self.require_region(
            region_of(self.aws_endpoint_url or ""), _said_by("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")
        )
        return self

    def require_endpoint(self, endpoint_url: str) -> None:
        """Raise ValueError if the endpoint that boto3 has chosen, by a profile say, is of another region."""
        self.require_region(region_of(endpoint_url), "the endpoint of the AWS profile")

    def require_region(self, region: str | None, says: str) -> None:
        """Raise ValueError if `region`, of which `says` is the source, is not the one of the queue's URL.

        A queue of the same name elsewhere may be another's: its messages would be taken and deleted.
        """
        named = region_of(self.sqs_queue_url or "")
        if region is not None and named is not None and region != named:
            raise ValueError(
                f"SQS_QUEUE_URL is in the region {named}, and {says} says {region}; expected one region: "
                f"unset {says}, or name the queue of {region}"
            )

    @classmethod
    def load(cls, **values: Any) -> "Settings":  # noqa: ANN401 - as many kinds as there are settings
        """Read the environment; keyword arguments win over it.

        Raises SettingsError, in one line that names each bad variable and never shows a value.
        """
        if values.get("_env_file", ".env"):
            _warn_of_strangers()
        try:
            return cls(**values)
        except ValidationError as error:
            faults = "; ".join(
                ": ".join(
                    [
                        *(str(part).upper() for part in fault["loc"]),
                        fault["msg"].removeprefix("Value error, "),
                    ]
                )
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise SettingsError(
                f"bad settings: {faults}. `processor settings --template` says what each one means."
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f".env can't be read ({type(error).__name__}); expected KEY=VALUE lines in UTF-8, "
                "as in `processor settings --template`"
            ) from None

    def need_database_url(self) -> str:
        """Give the DSN, or raise SettingsError that says how to set it."""
        if self.database_url is None:
            raise SettingsError(
                "DATABASE_URL is not set; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE "
                "in the environment or in .env (`processor dev --env-file PATH` writes one)"
                + said_elsewhere("DATABASE_URL")
            )
        return self.database_url.get_secret_value()

    def need_queue_url(self) -> str:
        """Give the queue's URL, or raise SettingsError that says how to set it."""
        if self.sqs_queue_url is None:
            raise SettingsError(
                "SQS_QUEUE_URL is not set; expected https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE "
                "in the environment or in .env (`processor dev --env-file PATH` writes one)"
                + said_elsewhere("SQS_QUEUE_URL", "SOURCE_URL", "AWS_ENDPOINT_URL")
            )
        return self.sqs_queue_url

    def need_sink_url(self) -> str:
        """Give the URL of the sink, or raise SettingsError that says how to set it, or how to do without."""
        if self.usage_sink_url is None:
            raise SettingsError(
                "USAGE_SINK_URL is not set; expected https://HOST/PATH, to which lines are posted, in the "
                "environment or in .env; or give --to FILE (or --to -), which needs no sink"
                + said_elsewhere("USAGE_SINK_URL")
            )
        return self.usage_sink_url.get_secret_value()

    def source_address(self) -> SourceAddress | None:
        """Give the broker that is read instead of SQS; None: it is SQS."""
        return None if self.source_url is None else source_address(self.source_url.get_secret_value())

    def need_source(self) -> None:
        """Raise SettingsError that says how to set it, if there is nothing to receive from."""
        if self.source_url is None:
            self.need_queue_url()

    def queue_name(self) -> str:
        """Give the name of the queue or topic that is read: the word the tables use."""
        address = self.source_address()
        if address is not None:
            return address.queue
        return urlsplit(self.need_queue_url()).path.rstrip("/").rsplit("/", 1)[-1]

    def aws_client_options(self) -> dict[str, Any]:
        """Give the keyword arguments of `boto3.client` that the settings name.

        What is unset is left to boto3's own chain (profiles, roles). The queue's URL fills two gaps before
        that: the region that it names, and the endpoint where its host is not the region's usual one.
        """
        region, endpoint_url = self.aws_region, self.aws_endpoint_url
        if self.sqs_queue_url is not None:
            region = region or region_of(self.sqs_queue_url)
            endpoint_url = endpoint_url or endpoint_of(self.sqs_queue_url)
        secret, token = self.aws_secret_access_key, self.aws_session_token
        options = {
            "endpoint_url": endpoint_url,
            "region_name": region,
            "aws_access_key_id": self.aws_access_key_id,
            "aws_secret_access_key": secret.get_secret_value() if secret else None,
            "aws_session_token": token.get_secret_value() if token else None,
        }
        return {name: value for name, value in options.items() if value is not None}


def _said_by(*aliases: str) -> str:
    """Give that of the names of one setting by which it is set."""
    known = {name for name, value in os.environ.items() if value} | set(env_file_names())
    return next((name for name in aliases if name in known), aliases[0])


def names() -> set[str]:
    """Name all that is read, as it stands in the environment, and what the tests read."""
    return {name.upper() for name in Settings.model_fields} | _ALIASES | FOR_TESTS


def _warn_of_strangers(said: set[str] = set()) -> None:  # noqa: B006 - once in a process
    """Say on standard error which keys of `.env` are no settings; their values are nobody's business."""
    note = unknown_keys(env_file_names(), names())
    if note and note not in said:
        said.add(note)
        print(note, file=sys.stderr)  # noqa: T201 - before there is a log
