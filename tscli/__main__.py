"""`python -m tscli`, and so `torchrun -m tscli`."""

from tscli.cli import entry

entry()
