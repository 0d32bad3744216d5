"""Registry Spooler: files dropped into a directory become the contents of a container registry.

Layers, top to bottom; each imports only what stands below it, and import-linter checks that:
the programs (`daemon`, `command`, `kubectl`) and the public `client`; `health`; `spool`; `push` and
`pull`; `archive` and `registry`; and the plain vocabulary at the bottom (`reference`, `digest`,
`manifest`, `errors` and their like).
"""

__version__ = "0.1.0"
"""The build reads it here. To ask the installed package would cost 1.3 MiB, for a parser of e-mail."""
