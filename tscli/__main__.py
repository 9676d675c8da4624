"""`python -m tscli`, and so `torchrun -m tscli`."""

import sys

from tscli.cli import main

sys.exit(main())
