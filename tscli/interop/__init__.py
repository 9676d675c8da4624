"""Policies in others' formats: exported to run without tscli, or imported; one file for each format."""
