"""The spool directory: what is dropped into it is handed to a handler, and no byte of it is lost.

It knows no registry and no archive. Start with `Spool` (spool.py); the promise is kept in attempt.py and removal.py,
the order in scheduling/queue.py, the truth about the directory in monitor.py.
"""
