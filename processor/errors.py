"""The exceptions, grouped by how they are handled, and the reasons of rejections.

    ProcessorError
    ├── SettingsError          a setting, file or argument is wrong: exit 2
    ├── NotFound               the requested object does not exist: exit 1
    ├── MigrationsPending      the database is behind the code: name the command to run, exit 1
    ├── Incompatible           a schema breaks the promise of its event type: exit 3
    ├── Busy                   another process is doing the same now: exit 1
    ├── Unavailable            an outage; nothing is lost: retry, or exit 4
    │   ├── SourceUnavailable
    │   └── StoreUnavailable
    ├── Stopped                stopped before all was done; nothing is lost: say what is left, exit 4
    ├── MustWait               a verdict takes time: validate again in the judge thread
    ├── SourceFault            the queue refuses our credentials, and a retry will not help: exit 1
    └── StoreFault             a bug or a missing right of ours: exit, and never reject an event for it

A bad event is not an exception. It is a value, a rejection with one of the reasons below.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a delivery became a rejection; the same words in SQL, metrics and docs/howto/rejections.md."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    ENVELOPE_INVALID = "envelope_invalid"
    UNKNOWN_TENANT = "unknown_tenant"
    TENANT_SUSPENDED = "tenant_suspended"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"
    UNKNOWN_SCHEMA_VERSION = "unknown_schema_version"
    SCHEMA_VIOLATION = "schema_violation"
    ID_CONFLICT = "id_conflict"
    TOO_LARGE = "too_large"
    UNSTORABLE = "unstorable"
    DEAD_LETTERED = "dead_lettered"


class ProcessorError(Exception):
    """The base class of all our errors. The text is written for users."""


class SettingsError(ProcessorError):
    """A setting, a file or an argument is wrong."""


class NotFound(ProcessorError):
    """The named object does not exist."""


class MigrationsPending(ProcessorError):
    """The database lacks migrations that this code needs."""


class Incompatible(ProcessorError):
    """A schema version breaks the promise of its event type, or can't be proven to keep it."""


class Busy(ProcessorError):
    """Another process is doing the same now."""


class Unavailable(ProcessorError):
    """A dependency can't be reached or can't work now. Nothing was lost; a retry may help."""


class SourceUnavailable(Unavailable):
    """The queue can't be reached or refuses to work for now."""


class StoreUnavailable(Unavailable):
    """The database can't be reached or refuses to work for now."""


class Stopped(ProcessorError):
    """The process was stopped during an outage or with work left. Its deliveries stay in the queue."""


class MustWait(ProcessorError):
    """The verdict needs the judge process, and the caller must not wait for it."""


class SourceFault(ProcessorError):
    """The queue has refused our credentials for so long that a retry will not help."""


class StoreFault(ProcessorError):
    """The database refused for a cause of ours: a missing right, a broken table, a bug."""
