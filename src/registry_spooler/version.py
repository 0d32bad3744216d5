"""The version, in the one place where it is set."""

__version__ = "0.1.0"
"""The build reads it here. To ask the installed package would cost 1.3 MiB, for a parser of e-mail."""
