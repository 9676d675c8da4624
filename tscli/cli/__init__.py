"""The command line: commands found in scripts, flags made from their settings, and the pages that it prints."""

from tscli.cli.app import entry, run_script

__all__ = ["entry", "run_script"]
