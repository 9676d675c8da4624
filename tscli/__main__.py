"""`python -m tscli`, and so `torchrun -m tscli`."""

from tscli.cli.app import entry

entry()
