"""Become another program that ends when its parent ends; run as a script, never imported.

    python guard.py PARENT_PID DEATH_SIGNAL UID GID PROGRAM [ARGUMENT ...]        (UID -1: stay who we are)

A server that a person never asked for must not survive the command that started it, not even after
`kill -9` of that command. The kernel does this (Linux), but forgets it whenever the user id changes, and
Python warns against running code between fork and exec. So a program of a few lines sets all of it
up in the right order and then becomes the server, under the same process id. Elsewhere than on Linux
it only drops privileges; leftovers are then found by their lock at the next start.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Drop privileges, bind our life to the parent's, and become the program; never returns."""
    parent, death_signal, uid, gid = (int(word) for word in sys.argv[1:5])
    command = sys.argv[5:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        # The parent may have died before the line above; then nobody would ever tell us.
        if os.getppid() != parent:
            sys.exit(1)
    # The parent blocked these while it forked us, and a shell may have made it ignore them; the program must
    # hear them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.execvp(command[0], command)  # noqa: S606 - what we are for


if __name__ == "__main__":
    main()
