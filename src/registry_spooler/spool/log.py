"""The log of the spool: for people, a line when a job starts and when it ends; for machines, `fields` on the record."""

from __future__ import annotations

import logging
from typing import Any, Final

from registry_spooler.progress import ImageResult, Progress
from registry_spooler.spool.filename import Action, display
from registry_spooler.spool.scheduling.job import Entry
from registry_spooler.spool.scheduling.outcome import Deferred, Done, Failed
from registry_spooler.text import duration_text, rfc3339, size_text

LOGGER: Final = "registry_spooler.spool"
_log: Final = logging.getLogger(LOGGER)
_IMAGES_SHOWN: Final = 5
REMIND_AFTER: Final = 120
"""So many attempts later, about an hour at the longest back-off, what keeps a file from being pushed is news again."""


def title(entry: Entry) -> str:
    """File and reference, for people."""
    reference = f" → {entry.reference}" if entry.reference is not None else ""
    return f"{display(entry.name)}{reference}"


def fields(entry: Entry, event: str, **more: object) -> dict[str, Any]:
    """What machines get to know."""
    reference = str(entry.reference) if entry.reference is not None else None
    return {
        "event": event,
        "file": display(entry.name),
        "action": entry.action.value,
        "reference": reference,
        "attempt": entry.attempts,
    } | more


def started(entry: Entry, size: int) -> None:
    """A job starts; the further attempts of a job that is deferred are told to those who ask for more (`-v`)."""
    verb = "deleting" if entry.action is Action.DELETE else "pushing"
    text = f"{verb} {title(entry)}" + (f" ({size_text(size)})" if entry.action is Action.PUSH else "")
    level = logging.INFO if entry.attempts == 1 else logging.DEBUG
    _log.log(level, "%s", text, extra={"fields": fields(entry, "started", size_bytes=size)})


def done(entry: Entry, ending: Done, progress: Progress, seconds: float) -> None:
    """A job is done."""
    images = [_image(result) for result in ending.results]
    shown = ", ".join(images[:_IMAGES_SHOWN]) + (", …" if len(images) > _IMAGES_SHOWN else "")
    if entry.action is Action.DELETE:
        verb = "deleted" if any(result.digest for result in ending.results) else "nothing to delete, there is no"
        text = f"{verb} {shown} ({display(entry.name)})"
    else:
        count = f"{len(images)} images, " if entry.reference is None else ""
        sent, skipped = size_text(progress.bytes_sent), size_text(progress.bytes_skipped)
        text = f"pushed {count}{shown} from {display(entry.name)}: {sent} sent, {skipped} skipped"
    more: dict[str, Any] = {
        "bytes_sent": progress.bytes_sent,
        "bytes_skipped": progress.bytes_skipped,
        "seconds": round(seconds, 3),
    }
    if entry.reference is None:
        more["images"] = images
    else:
        more["digest"] = next((str(result.digest) for result in ending.results if result.digest), None)
    _log.info("%s, %.1f s", text, seconds, extra={"fields": fields(entry, "done", **more)})


def _image(result: ImageResult) -> str:
    return f"{result.reference}@{result.digest}" if result.digest else str(result.reference)


def failed(entry: Entry, ending: Failed, seconds: float) -> None:
    """A job has failed for good."""
    error = display(ending.record["error"])
    _log.error(
        "failed %s: %s (kept in .failed)",
        title(entry),
        error,
        extra={"fields": fields(entry, "failed", error=error, seconds=round(seconds, 3))},
    )


def crashed(entry: Entry, sentence: str, error: BaseException) -> None:
    """An error that nobody foresaw: with its traceback when it is news, and not again at every try."""
    if entry.error != sentence:
        _log.error("%s: internal error", title(entry), exc_info=error, extra={"fields": fields(entry, "crashed")})


def ping_crashed(error: BaseException) -> None:
    """An error that nobody foresaw kept us from asking the registry."""
    _log.error("asking the registry met an internal error", exc_info=error, extra={"fields": {"event": "crashed"}})


def deferred(entry: Entry, ending: Deferred, delay_seconds: float) -> None:
    """A job has to wait; said aloud when it is news or has not been for long, else to those who ask for more (`-v`)."""
    error = display(ending.error)
    news = (entry.reason, entry.error) != (ending.reason, ending.error)
    reminds = entry.failures > 0 and entry.failures % REMIND_AFTER == 0
    _log.log(
        logging.WARNING if news or reminds else logging.DEBUG,
        "deferred %s: %s; next try %s%s",
        title(entry),
        error,
        f"in {duration_text(delay_seconds)}" if delay_seconds >= 0.05 else "now",
        _delayed(entry, ending) if entry.failures else "",
        extra={"fields": fields(entry, "deferred", reason=ending.reason.value, error=error)},
    )


def gave_way(entry: Entry) -> None:
    """A job has taken long in the place that is for quick ones."""
    _log.info("%s gives way to quicker files", title(entry), extra={"fields": fields(entry, "waiting")})


def suspected(entry: Entry) -> None:
    """Too many have died over it."""
    _log.warning(
        "%s goes last, and alone: the spooler has died %d times while it worked on it",
        title(entry),
        entry.deaths.count,
        extra={"fields": fields(entry, "suspected", deaths=entry.deaths.count)},
    )


def _delayed(entry: Entry, ending: Deferred) -> str:
    """Since when a file is tried again and again, and who waits for it."""
    since = f"; it has been here since {rfc3339(entry.since)}"
    if ending.non_blocking:
        return since
    if entry.is_bundle:
        return f"{since}, and all that came after it waits for it"
    return f"{since}, and later files of {entry.repository} wait for it" if entry.reference is not None else since


def abandoned(entry: Entry) -> None:
    """A job is cut short because the spool stops."""
    _log.warning(
        "abandoned %s: it is done at the next start", title(entry), extra={"fields": fields(entry, "abandoned")}
    )


def odd(name: str, kind: str) -> None:
    """Something in the spool is left alone."""
    _log.warning(
        "%s is left alone: it is a %s, not a file",
        display(name),
        kind,
        extra={"fields": {"event": "odd", "file": display(name), "kind": kind}},
    )


def trouble(sentence: str) -> None:
    """The spool directory itself is not as it should be."""
    _log.error("%s", display(sentence), extra={"fields": {"event": "trouble", "error": display(sentence)}})


def recovered(sentence: str) -> None:
    """The spool directory is as it should be."""
    _log.info("%s", display(sentence), extra={"fields": {"event": "recovered"}})
