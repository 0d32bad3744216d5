"""`kubectl spool`: the registry and the spooler of a cluster from the user's terminal.

`main` is the group of commands and the program's end; each command's module parses, calls `SpoolerClient`, and prints.
"""
