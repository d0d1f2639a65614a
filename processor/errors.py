"""What can go wrong, by what to do about it, and the words for it.

    ProcessorError
    ├── SettingsError          a setting, file or argument is wrong: say so and exit 2
    ├── NotFound               what was asked for is not there: say so and exit 1
    ├── MigrationsPending      the database is behind the code: say which command to run, exit 1
    ├── Incompatible           a schema breaks what its event type promises: say so and exit 3
    ├── Busy                   somebody else is doing it at this moment: say so and exit 1
    ├── Unavailable            an outage: nothing is lost; wait it out, or exit 4
    │   ├── SourceUnavailable
    │   └── StoreUnavailable
    ├── Stopped                told to stop before all was done: say what is left and exit 4; nothing is lost
    ├── MustWait               a verdict takes time: ask again where others don't wait for it
    ├── SourceFault            the queue refuses who we are, and no waiting mends it: say so and exit 1
    └── StoreFault             a bug or a missing right of ours: stop and shout, never blame a tenant

A bad event is none of these. It is a value, a rejection with one of the reasons below.
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
    """The root of all errors that we raise on purpose; its text is fit for a person to read."""


class SettingsError(ProcessorError):
    """A setting, a file or an argument is wrong."""


class NotFound(ProcessorError):
    """Something that was named does not exist."""


class MigrationsPending(ProcessorError):
    """The database lacks migrations that this code needs."""


class Incompatible(ProcessorError):
    """A version of a schema breaks what its event type promises, or can't be proven to keep it."""


class Busy(ProcessorError):
    """Somebody else is doing this at the moment, and two at once would be of no use."""


class Unavailable(ProcessorError):
    """A dependency can't be reached or can't work now. Nothing was lost; trying again is right."""


class SourceUnavailable(Unavailable):
    """The queue can't be reached or refuses to work for now."""


class StoreUnavailable(Unavailable):
    """The database can't be reached or refuses to work for now."""


class Stopped(ProcessorError):
    """We were told to stop during an outage, or with work left. What we held stays in the queue."""


class MustWait(ProcessorError):
    """There is no verdict without a wait for the judge process, and whoever asked may not wait."""


class SourceFault(ProcessorError):
    """The queue has refused our credentials for so long that waiting will not mend it."""


class StoreFault(ProcessorError):
    """The database refused for a cause that is ours: a missing right, a broken table, a bug."""
