"""All that can be set from outside, with bounds: environment variables, or a `.env` file beside you.

Each class has the settings of one command, or of a part that several commands share, so that a wrong value
stops only the commands that read it. Each setting has a line in `.env-template`; a test compares the two.
"""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator, model_validator

from processor.brokers.aws_hosts import endpoint_of, region_of
from processor.brokers.source_url import SourceAddress, source_address
from processor.errors import SettingsError
from processor.settings.foreign import said_elsewhere
from processor.settings.loading import SettingsGroup, name_in_use
from processor.settings.values import (
    RATE_MAX,
    PostgresUrl,
    Producers,
    QueueUrl,
    Rates,
    SenderTenants,
    SinkUrl,
    SourceUrl,
    Tenants,
    Token,
    Unwrap,
)

MIB = 1024 * 1024
DAYS_MAX = 36_500
KEY_DAYS_ADVISED = 28
"""SQS keeps a message for up to 14 days, and for 14 more after a redrive from its dead-letter queue."""


class DatabaseSettings(SettingsGroup):
    """The database. Almost every command reads it."""

    database_url: PostgresUrl | None = None
    database_timeout_s: int = Field(30, ge=1, le=600)

    def need_database_url(self) -> str:
        """Return the DSN, or raise SettingsError with how to set it."""
        if self.database_url is None:
            raise SettingsError(
                "DATABASE_URL is not set; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE "
                "in the environment or in .env (`processor dev --env-file PATH` writes one)"
                + said_elsewhere("DATABASE_URL")
            )
        return self.database_url.get_secret_value()


class SqsSettings(SettingsGroup):
    """An SQS queue and the parameters of its client."""

    sqs_queue_url: QueueUrl | None = None
    aws_endpoint_url: str | None = Field(
        None, validation_alias=AliasChoices("aws_endpoint_url_sqs", "aws_endpoint_url")
    )
    aws_region: str | None = Field(None, validation_alias=AliasChoices("aws_region", "aws_default_region"))
    aws_access_key_id: str | None = None
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    localstack_host: str | None = None
    sqs_client: Literal["lean", "boto3"] = "lean"

    @model_validator(mode="after")
    def _one_region(self) -> "SqsSettings":
        self.require_region(self.aws_region, name_in_use("AWS_REGION", "AWS_DEFAULT_REGION"))
        self.require_region(
            region_of(self.aws_endpoint_url or ""), name_in_use("AWS_ENDPOINT_URL_SQS", "AWS_ENDPOINT_URL")
        )
        return self

    def require_endpoint(self, endpoint_url: str) -> None:
        """Raise ValueError if boto3's endpoint, for example from a profile, is in another region."""
        self.require_region(region_of(endpoint_url), "the endpoint of the AWS profile")

    def require_region(self, region: str | None, says: str) -> None:
        """Raise ValueError if `region`, set by `says`, differs from the region of the queue's URL.

        A queue of the same name in another region may belong to others, whose messages would be deleted.
        """
        named = region_of(self.sqs_queue_url or "")
        if region is not None and named is not None and region != named:
            raise ValueError(
                f"SQS_QUEUE_URL is in the region {named}, and {says} says {region}; expected one region: "
                f"unset {says}, or name the queue of {region}"
            )

    def need_queue_url(self) -> str:
        """Return the queue's URL, or raise SettingsError with how to set it."""
        if self.sqs_queue_url is None:
            raise SettingsError(
                "SQS_QUEUE_URL is not set; expected https://sqs.REGION.amazonaws.com/ACCOUNT/QUEUE "
                "in the environment or in .env (`processor dev --env-file PATH` writes one)"
                + said_elsewhere("SQS_QUEUE_URL", "SOURCE_URL", "AWS_ENDPOINT_URL")
            )
        return self.sqs_queue_url

    def aws_client_options(self) -> dict[str, Any]:
        """Return the keyword arguments for `boto3.client` from the settings.

        Unset ones are left to boto3's own chain (profiles, roles). Before that, the queue's URL gives the
        region, and the endpoint if its host is not the usual one of the region.
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


class SourceSettings(SqsSettings):
    """The broker of SOURCE_URL, or else the queue of SQS_QUEUE_URL."""

    source_url: SourceUrl | None = None

    def source_address(self) -> SourceAddress | None:
        """Return the address of the broker, or None for SQS."""
        return None if self.source_url is None else source_address(self.source_url.get_secret_value())

    def need_source(self) -> None:
        """Raise SettingsError, with how to set it, if no source is set."""
        if self.source_url is None:
            self.need_queue_url()

    def queue_name(self) -> str:
        """Return the name of the queue or topic, as in the tables."""
        address = self.source_address()
        if address is not None:
            return address.queue
        return urlsplit(self.need_queue_url()).path.rstrip("/").rsplit("/", 1)[-1]


class ReceiveSettings(SourceSettings):
    """How messages are received from the broker."""

    routing_key: str | None = None
    routing_key_tenant: str | None = None
    unwrap: Unwrap | None = None
    receive_count_max: int = Field(10, ge=4, le=1000)
    receivers: int = Field(3, ge=1, le=64)
    settlers: int = Field(3, ge=1, le=64)
    receive_wait_s: int = Field(20, ge=0, le=20)
    visibility_timeout_s: int = Field(60, ge=2, le=43_200)


class BodySettings(SettingsGroup):
    """Size limits of bodies, for the processor and the gateway."""

    body_bytes_max: int = Field(MIB, ge=1024, le=16 * MIB)
    json_depth_max: int = Field(64, ge=4, le=512)
    json_values_max: int = Field(100_000, ge=1000, le=10_000_000)


class ConnectionSettings(DatabaseSettings, ReceiveSettings):
    """The database and the broker: `audit`."""


class ValidationSettings(ConnectionSettings, BodySettings):
    """Settings of the validation, beside the registry in the database: `schema trial`, `dlq list`, …."""

    queue_tenants: Tenants = None
    sender_tenants: SenderTenants = None
    judge_timeout_s: float = Field(10.0, ge=0.5, le=600)


class StoreSettings(ValidationSettings):
    """Settings of commands that validate and save: `run`, `rejection replay`, `dlq import`."""

    storage_rejected_bytes: int = Field(2**30, ge=1, le=2**50)
    storage_alarm_bytes: int = Field(10 * 2**30, ge=1, le=2**60)


class RetentionSettings(DatabaseSettings):
    """The ages at which rows are deleted: `retention`, and commands that must not store a message again."""

    # Declared first, because the validator of the others reads it.
    key_retention_days: int = Field(35, ge=1, le=DAYS_MAX)
    message_retention_days: int | None = Field(None, ge=1, le=DAYS_MAX)
    duplicate_retention_days: int | None = Field(None, ge=1, le=DAYS_MAX)
    rejection_retention_days: int | None = Field(None, ge=1, le=DAYS_MAX)

    @field_validator("message_retention_days", "duplicate_retention_days", "rejection_retention_days")
    @classmethod
    def _no_shorter_than_keys(cls, value: int | None, info: ValidationInfo) -> int | None:
        # Absent if the value itself is invalid, which is reported anyway.
        least = info.data.get("key_retention_days", 0)
        if value is not None and value < least:
            raise ValueError(
                f"{value} is below KEY_RETENTION_DAYS={least}; expected {least} or more: what comes again "
                "after its row was removed is stored, and counted, a second time"
            )
        return value


class ReplaySettings(StoreSettings, RetentionSettings):
    """`processor rejection replay`."""


class RejectAlarmSettings(DatabaseSettings):
    """The threshold of the alarm on rejections: `run` and `rejection stats`."""

    reject_alarm_share: float = Field(0.2, gt=0, le=1)
    reject_alarm_count_min: int = Field(50, ge=1, le=1_000_000)
    reject_alarm_window_s: int = Field(300, ge=10, le=86_400)


class OutageSettings(SettingsGroup):
    """The backoff during an outage."""

    retry_wait_s_max: float = Field(30.0, ge=0.05, le=600)


class ServiceSettings(OutageSettings):
    """Settings of services: `run`, `dispatch` and the gateway."""

    stop_timeout_s: float = Field(22.0, ge=1, le=600)
    http_host: str = "127.0.0.1"
    http_port: int = Field(8080, ge=0, le=65_535)
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class PipelineSettings(ReceiveSettings):
    """The limits of the pipeline."""

    writers: int = Field(1, ge=1, le=16)
    batch_size_max: int = Field(500, ge=1, le=5000)
    batch_bytes_max: int = Field(MIB, ge=64 * 1024)
    linger_ms: int = Field(0, ge=0, le=10_000)
    buffer_size_max: int = Field(2000, ge=10, le=100_000)
    buffer_bytes_max: int = Field(4 * MIB, ge=MIB)
    hold_s_max: int = Field(39_600, ge=10, le=43_000)


class RunSettings(PipelineSettings, ReplaySettings, RejectAlarmSettings, ServiceSettings):
    """`processor run`."""

    keep_to_one_core: Literal["auto", "on", "off"] = "auto"


class DispatchSettings(DatabaseSettings, ServiceSettings):
    """`processor dispatch`."""

    usage_sink_url: SinkUrl | None = None
    usage_sink_token: Token | None = None
    usage_sink_lines_max: int = Field(1000, ge=1, le=10_000)
    usage_sink_amounts: Literal["number", "string"] = "number"
    usage_sink_timeout_s: float = Field(10.0, ge=0.1, le=300)
    usage_sink_refused_wait_s_max: float = Field(3600.0, ge=1, le=86_400)
    usage_dispatch_every_s: float = Field(60.0, ge=0.1, le=86_400)

    def need_sink_url(self) -> str:
        """Return the URL of the sink, or raise SettingsError with how to set it or do without."""
        if self.usage_sink_url is None:
            raise SettingsError(
                "USAGE_SINK_URL is not set; expected https://HOST/PATH, to which lines are posted, in the "
                "environment or in .env; or give --to FILE (or --to -), which needs no sink"
                + said_elsewhere("USAGE_SINK_URL")
            )
        return self.usage_sink_url.get_secret_value()


class KeySettings(DatabaseSettings):
    """Limits of API keys: `key add`, `queue set` and the gateway."""

    reserved_producers: Producers = "platform,platform/*"


class GatewaySettings(KeySettings, SqsSettings, BodySettings, ServiceSettings):
    """`producers gateway`. Declared here because `processor settings` prints it too."""

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(8090, ge=0, le=65_535)
    gateway_grpc_port: int = Field(50_051, ge=0, le=65_535)
    gateway_probes_port: int = Field(8091, ge=0, le=65_535)
    gateway_keys: Literal["required", "off"] = "required"
    gateway_compat: Literal["usage-service"] | None = None
    gateway_answer: Literal["200", "202", "204"] = "202"
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
    gateway_tenant_rates: Rates = None


class GatewayKeySettings(SettingsGroup):
    """The API key that a publisher sends to a gateway: `producers load`."""

    gateway_key: Token | None = None


class PublisherSettings(GatewayKeySettings, SourceSettings, OutageSettings):
    """`producers fake` and `producers send`."""


class Settings(RunSettings, DispatchSettings, PublisherSettings, GatewaySettings):
    """All settings, which `processor settings` prints and `processor check` validates."""
