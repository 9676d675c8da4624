"""The command line: the app, its commands, flags from configs, and the pages that it prints."""

from tscli.cli.app import entry, run_script

__all__ = ["entry", "run_script"]
