"""What waits, runs and failed, read in the pod: the spooler's status page, and its `.failed` directory."""

from __future__ import annotations

import http.client
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from registry_spooler.cli.process import NotHere
from registry_spooler.errors import SpoolerError
from registry_spooler.folder import Folder
from registry_spooler.spool.filename import published_name

FAILED: Final = ".failed"
STATUS_SECONDS: Final = 10.0
STATUS_LIMIT_BYTES: Final = 8 << 20
_WILDCARDS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - it is compared, not bound


class SpoolerUnreachable(SpoolerError):
    """The spooler does not answer."""

    port: int
    reason: str
    temporary = True
    sentence = "the spooler does not answer on port {port}: {reason}; see `kubectl spool logs`"


class NoFailure(NotHere):
    """A name that has not failed, so that there is nothing to try again."""

    name: str
    sentence = "no file {name!q} has failed; `failed` lists those that have"


class NameTaken(SpoolerError):
    """A file of that name waits already."""

    name: str
    sentence = "{name!q} is waiting in the spool directory already; wait for it, then try again"


def read_status(port: int, address: str = "") -> dict[str, Any]:
    """The document that the spooler's `/status` gives; `address` is where it listens, empty for everywhere."""
    if address in _WILDCARDS:
        address = "localhost"  # by IPv4 or IPv6, whichever answers
    connection = http.client.HTTPConnection(address, port, timeout=STATUS_SECONDS)
    try:
        connection.request("GET", "/status", headers={"Accept": "application/json"})
        document = orjson.loads(connection.getresponse().read(STATUS_LIMIT_BYTES))
    except (OSError, http.client.HTTPException) as exc:
        reason = (exc.strerror if isinstance(exc, OSError) else None) or str(exc) or type(exc).__name__
        raise SpoolerUnreachable(port, reason) from exc
    except orjson.JSONDecodeError as exc:
        raise SpoolerUnreachable(port, "what answers there is no spooler") from exc
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise SpoolerUnreachable(port, "what answers there is no spooler")
    return document


def list_failed(directory: Path) -> list[dict[str, Any]]:
    """The records of the failures, oldest first; a file without a readable record has a record of its name alone."""
    from registry_spooler.spool.directory.files import open_own
    from registry_spooler.spool.records import failed_files, read_failure
    from registry_spooler.text import encodable

    folder = open_own(directory, FAILED)
    if folder is None:
        return []
    with folder:
        records = [
            {**(read_failure(folder, name) or {"error": "it has no record"}), "name": encodable(name)}
            for name in failed_files(folder)
        ]
    return sorted(records, key=lambda record: str(record.get("time") or ""))


def retry(directory: Path, name: str, new_name: str | None = None) -> str:
    """Put a failed file back, as `mv .failed/NAME NAME` does, but never over a file that waits; its name there.

    `name` is the file's, or what `list_failed` calls it; `new_name` is another one, or REPO[:TAG].
    """
    from registry_spooler.spool.directory.files import rename_noreplace

    with _failed_file(directory, name) as (folder, failed), Folder.open(directory) as spool:
        target = failed if new_name is None else published_name(failed, new_name)
        try:
            rename_noreplace(folder, failed, spool, target)
        except FileExistsError as exc:
            raise NameTaken(target) from exc
        _remove_record(folder, failed)
    return target


def discard(directory: Path, name: str) -> None:
    """Remove a failed file and its record for good; `name` is as for `retry`."""
    with _failed_file(directory, name) as (folder, failed):
        folder.remove(failed, missing_ok=True)
        _remove_record(folder, failed)


@contextmanager
def _failed_file(directory: Path, name: str) -> Iterator[tuple[Folder, str]]:
    """`.failed/`, open, and the file's name in it; NoFailure when there is none."""
    if not name or "/" in name or "\0" in name or name.startswith("."):
        raise NoFailure(name)
    from registry_spooler.spool.directory.files import open_own
    from registry_spooler.spool.records import failed_files
    from registry_spooler.text import encodable

    folder = open_own(directory, FAILED)
    if folder is None:
        raise NoFailure(name)
    with folder:
        known = failed_files(folder)
        found = name if name in known else next((each for each in known if encodable(each) == name), None)
        if found is None or not stat.S_ISREG(folder.status(found).st_mode):
            raise NoFailure(name)
        yield folder, found


def _remove_record(folder: Folder, name: str) -> None:
    from registry_spooler.spool.records import error_name, read_failure

    if read_failure(folder, name) is not None:  # whatever else is called so is somebody's file
        folder.remove(error_name(name), missing_ok=True)
