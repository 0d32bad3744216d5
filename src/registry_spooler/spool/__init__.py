"""The spool directory: what is dropped into it is handed to a handler, and no byte of it is lost.

It knows no registry and no archive. Start with `Spool` (spool.py); the promise is kept in runner.py and removal.py,
the order in queue.py, the truth about the directory in keeper.py.
"""

from registry_spooler.spool.backoff import Backoff
from registry_spooler.spool.board import Board, DeferredFile, Fact, OddEntryShown, RunningJob, Totals, WaitingFile
from registry_spooler.spool.job import Handler, Job, JobEnd, Outcome, Reason
from registry_spooler.spool.names import display
from registry_spooler.spool.opened import OpenedFile
from registry_spooler.spool.settings import SpoolSettings
from registry_spooler.spool.spool import Spool
from registry_spooler.spool.wait import FileNotInSpool, WaitOutcome, wait_for_outcome

__all__ = [
    "Backoff",
    "Board",
    "DeferredFile",
    "Fact",
    "FileNotInSpool",
    "Handler",
    "Job",
    "JobEnd",
    "OddEntryShown",
    "OpenedFile",
    "Outcome",
    "Reason",
    "RunningJob",
    "Spool",
    "SpoolSettings",
    "Totals",
    "WaitOutcome",
    "WaitingFile",
    "display",
    "wait_for_outcome",
]
