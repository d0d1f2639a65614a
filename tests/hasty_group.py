"""`processor run` in a group that soon forgets the dead, and dying of POISON: `-m tests.hasty_group run`."""

from processor.cli import main
from processor.sources.kafka import source
from tests.chaos.victims.poisoned import arm

if __name__ == "__main__":
    arm()
    # A broker of Kafka takes no shorter session than six seconds unless it is told to; the tests' do.
    setattr(source, "SESSION_S_MIN", 1)  # noqa: B010 - it is a constant to everybody else
    main()
