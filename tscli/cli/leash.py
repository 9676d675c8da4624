"""`python -m tscli.cli.leash ...`: a tscli command that ends when whoever started it is gone.

Its starter holds the other end of its standard input and never writes to it. When that end closes, however the starter
went, the command gets SIGTERM: it writes its checkpoint and stops.
"""

from __future__ import annotations

import os
import signal
import threading

from tscli.cli.app import entry


def _watch() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    # A daemon, and no buffered reader: one that waits for its lock would hold up the end of the process.
    threading.Thread(target=_watch, daemon=True).start()
    entry()
