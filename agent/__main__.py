"""The command ``sockagent``: signal handlers first, as importing the rest takes a while."""

import gc
import os
from typing import NoReturn

from . import signals

signals.exit_until_ready()

from .cli import main  # noqa: E402 (see above)


def entry() -> NoReturn:
    """Run the command and end the process with its exit status. ``os._exit`` skips the
    interpreter's shutdown, which would free every object one by one."""
    # Loading modules and taking the first snapshot leave no garbage worth collecting; following
    # enables the collector again.
    gc.disable()
    os._exit(main())


if __name__ == "__main__":
    entry()
