"""The password of our PostgreSQL, so that other users of this machine are nobody to it.

DIRECTORY/pgpass         the superuser's password as libpq reads it (URL parameter `passfile`), for us alone
DIRECTORY/data/pg_hba.conf    asks everybody for a password

A URL with a password in it would be shown to all users by `ps`, as soon as it is given to `psql`.
"""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from processor.devstack.servers.children import Account

SUPERUSER = "postgres"
_RULES = """# Written anew at each start.
# TYPE  DATABASE     USER  ADDRESS       METHOD
host    all          all   127.0.0.1/32  {method}
host    replication  all   127.0.0.1/32  {method}
"""


def write_rules(data: Path, method: str, account: Account | None) -> None:
    """Say how the server knows who connects: `scram-sha-256`, or `trust` for a server without secrets."""
    # The server's account may write in its data: no link of its making may lead us elsewhere.
    descriptor, temporary = tempfile.mkstemp(prefix="pg_hba-", dir=data)
    with os.fdopen(descriptor, "w") as file:
        file.write(_RULES.format(method=method))
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    Path(temporary).replace(data / "pg_hba.conf")


def new_password() -> str:
    """Give a password that nobody guesses, of characters that mean nothing to SQL, libpq and shells."""
    return secrets.token_hex(24)


def write_passfile(path: Path, password: str) -> None:
    """Keep it for us alone; the file appears whole or not at all."""
    # mkstemp makes it with mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=".pgpass-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(f"127.0.0.1:*:*:{SUPERUSER}:{password}\n")
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
