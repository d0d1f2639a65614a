"""`producers`, and `python -m producers`."""

import signal


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Set before the imports: until there is something to clean up, Ctrl-C ends the process.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from processor.runtime.start import start  # noqa: PLC0415

    start("producers", "main")


if __name__ == "__main__":
    main()
