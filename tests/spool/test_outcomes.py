from __future__ import annotations

import os
import re
from pathlib import Path

import orjson
import pytest

from registry_spooler.errors import (
    AccessDenied,
    ArchiveError,
    ArchiveTruncated,
    RegistryAnswer,
    RegistryProtocolError,
    RegistryUnreachable,
    UploadLost,
)
from registry_spooler.oci.digest import Digest
from registry_spooler.oci.reference import Reference
from registry_spooler.progress import ImageResult, Progress
from registry_spooler.spool.directory.files import OpenedFile
from registry_spooler.spool.filename import Action
from registry_spooler.spool.scheduling.job import Job, Outcome, Reason
from support.spool.scripted import Handler, debris, drop, failure, image, receipt, spooling, visible

UNREACHABLE = RegistryUnreachable("localhost:5000", "connection refused")


async def test_a_file_that_is_done_is_removed_and_has_a_receipt(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        drop(spool_directory, "team\\app:1.2.tar", b"archive")
        await running.until_done("team\\app:1.2.tar")

    document = receipt(spool_directory, "team\\app:1.2.tar")
    assert document.pop("seconds") >= 0
    for moment in (document.pop("started"), document.pop("finished")):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    assert document == {
        "file": "team\\app:1.2.tar",
        "action": "push",
        "reference": "team/app:1.2",
        "digest": str(Digest.of(b"archive")),
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "size_bytes": 7,
        "platforms": [],
        "missing": [],
        "blobs": {"uploaded": 1, "existing": 0, "mounted": 0},
        "uploaded_bytes": 7,
        "left_out": [],
        "referrers": 0,
        "attempts": 1,
    }
    assert handler.registry == {"team/app:1.2": b"archive"}
    assert visible(spool_directory) == []
    assert debris(spool_directory) == []


async def test_what_was_there_before_the_start_is_pushed_in_the_order_of_arrival(
    spool_directory: Path, handler: Handler
) -> None:
    for name in ("b:1.tar", "a:1.tar", "a:2.tar", "b!", "b:2.tar"):
        drop(spool_directory, name)
    async with spooling(spool_directory, handler, jobs_at_once=1) as running:
        await running.until_done("b:1.tar", "a:1.tar", "a:2.tar", "b!", "b:2.tar")
    assert [name for name, _ in handler.pushes] == ["b:1.tar", "a:1.tar", "a:2.tar", "b!", "b:2.tar"]


async def test_a_file_that_is_closed_after_writing_is_taken(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        (spool_directory / "hello.txt").write_bytes(b"hello")
        await running.until_done("hello.txt")
    assert handler.pushes == [("hello.txt", b"hello")]
    assert receipt(spool_directory, "hello.txt")["reference"] == "hello:latest"


async def test_files_that_are_being_written_and_our_own_are_left_alone(spool_directory: Path, handler: Handler) -> None:
    (spool_directory / "before.tar~").write_bytes(b"")
    (spool_directory / ".hidden").write_bytes(b"")
    os.utime(spool_directory / "before.tar~", (0, 0))
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        (spool_directory / "after.tar~").write_bytes(b"")
        (spool_directory / ".hidden.tar").write_bytes(b"")
        (spool_directory / "gone!~").write_bytes(b"")
        drop(spool_directory, "last.tar")
        await running.until_done("last.tar")
        assert running.state.stale_count == 1
    assert handler.attempts == ["last.tar"]
    assert visible(spool_directory) == ["after.tar~", "before.tar~", "gone!~"]


async def test_a_deletion_needs_no_content_and_no_right_to_read(spool_directory: Path, handler: Handler) -> None:
    handler.registry["app:1"] = b""
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        (spool_directory / "app:1.tar!~").touch(mode=0)
        os.rename(spool_directory / "app:1.tar!~", spool_directory / "app:1.tar!")
        await running.until_done("app:1.tar!")
    assert handler.registry == {}
    assert receipt(spool_directory, "app:1.tar!")["action"] == "delete"
    assert receipt(spool_directory, "app:1.tar!")["reference"] == "app:1"
    assert visible(spool_directory) == []


async def test_a_bundle_has_one_record_for_each_image(spool_directory: Path) -> None:
    async def push(job: Job, file: OpenedFile, progress: Progress) -> tuple[ImageResult, ...]:
        assert job.reference is None
        return (image(Reference("one"), b"1"), image(Reference("two", "v2"), b"2"))

    async with spooling(spool_directory, push) as running:
        drop(spool_directory, "@all.tar")
        await running.until_done("@all.tar")
    document = receipt(spool_directory, "@all.tar")
    assert [record["reference"] for record in document["images"]] == ["one:latest", "two:v2"]
    assert document["images"][0].keys() >= {"digest", "platforms", "blobs", "attempts", "seconds"}
    assert document["file"] == "@all.tar"
    assert document["action"] == "push"


async def test_a_bad_name_fails_with_its_reason_and_keeps_its_bytes(spool_directory: Path, handler: Handler) -> None:
    drop(spool_directory, "UPPER.tar", b"bytes")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("UPPER.tar")
        await running.until(lambda: running.state.failed_count == 1)
        assert [document["file"] for document in running.state.failures] == ["UPPER.tar"]
    document = failure(spool_directory, "UPPER.tar")
    assert document.pop("time").endswith("Z")
    assert document == {
        "file": "UPPER.tar",
        "action": "push",
        "reference": None,
        "error": "the file name 'UPPER.tar' does not name an image: 'UPPER' has upper-case letters, and repository "
        "names are lower-case",
        "detail": "",
        "attempts": 1,
    }
    assert (spool_directory / ".failed" / "UPPER.tar").read_bytes() == b"bytes"
    assert handler.attempts == []
    assert visible(spool_directory) == []


@pytest.mark.parametrize(
    "error",
    [
        ArchiveError("it is no image archive"),
        RegistryAnswer("PUT", "http://localhost:5000/v2/app", 403, code="DENIED"),
        ExceptionGroup("tasks", [UploadLost("app", "gone"), ArchiveError("it is no image archive")]),
    ],
    ids=["archive", "registry", "group"],
)
async def test_what_is_wrong_for_good_fails(spool_directory: Path, handler: Handler, error: Exception) -> None:
    handler.first("app.tar", error)
    drop(spool_directory, "app.tar", b"bytes")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar")
        assert running.outcomes == [("app.tar", Outcome.FAILED)]
    assert failure(spool_directory, "app.tar")["error"] == str(
        error.exceptions[1] if isinstance(error, ExceptionGroup) else error
    )
    assert (spool_directory / ".failed" / "app.tar").read_bytes() == b"bytes"
    assert not (spool_directory / ".receipts" / "app.tar.json").exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UNREACHABLE, Reason.UNREACHABLE),
        (RegistryAnswer("PUT", "http://localhost:5000/v2/app", 503), Reason.STATUS),
        (RegistryAnswer("PUT", "http://localhost:5000/v2/app", 507), Reason.STATUS),
        (RegistryProtocolError("http://localhost:5000", "a web page"), Reason.PROTOCOL),
        (AccessDenied("GET", "http://localhost:5000/v2/", 401), Reason.LOGIN),
        (UploadLost("app", "gone"), Reason.UPLOAD),
        (OSError(5, "Input/output error"), Reason.FILE),
        (RuntimeError("a mistake"), Reason.INTERNAL),
        (ExceptionGroup("tasks", [UploadLost("app", "gone")]), Reason.UPLOAD),
    ],
    ids=["unreachable", "status", "full", "protocol", "login", "upload", "file", "internal", "group"],
)
async def test_what_may_heal_is_tried_again_and_stays_where_it_is(
    spool_directory: Path, handler: Handler, error: Exception, reason: Reason
) -> None:
    handler.always("app.tar", error)
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: len(handler.attempts) >= 3 and running.state.deferred())
        (deferred,) = running.state.deferred()
        assert (deferred.name, deferred.reason) == ("app.tar", reason)
        assert visible(spool_directory) == ["app.tar"]
        handler.heal("app.tar")
        await running.until_done("app.tar")
        assert running.state.retries[reason.value] == len(handler.attempts) - 1
        assert running.state.jobs == {
            ("push", "deferred"): len(handler.attempts) - 1,
            ("push", "done"): 1,
        }
    assert receipt(spool_directory, "app.tar")["attempts"] == len(handler.attempts)


async def test_an_error_that_nobody_foresaw_fails_no_file_and_is_logged_once(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    handler.always("app.tar", RuntimeError("a mistake"))
    drop(spool_directory, "app.tar", b"bytes")
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: len(handler.attempts) >= 8)
        handler.heal("app.tar")
        await running.until_done("app.tar")
        assert {("push", "deferred"), ("push", "done")} == set(running.state.jobs)
    (record,) = [record for record in caplog.records if record.exc_info]
    assert "internal error" in record.message
    assert "RuntimeError: a mistake" in str(record.exc_text)
    assert handler.pushes == [("app.tar", b"bytes")]


async def test_a_retry_by_hand_removes_the_old_error(spool_directory: Path, handler: Handler) -> None:
    handler.first("app.tar", ArchiveError("first"), ArchiveError("second"))
    drop(spool_directory, "app.tar", b"bytes")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app.tar")
        os.rename(spool_directory / ".failed" / "app.tar", spool_directory / "app.tar")
        await running.until(lambda: len(running.ends) == 2)
        assert failure(spool_directory, "app.tar")["error"] == "second"
        await running.until(lambda: running.state.failed_count == 1)
        assert [(record["file"], record["error"]) for record in running.state.failures] == [("app.tar", "second")]
        os.rename(spool_directory / ".failed" / "app.tar", spool_directory / "app.tar")
        await running.until(lambda: len(running.ends) == 3 and running.state.failed_count == 0)
        assert not running.state.failures
    assert os.listdir(spool_directory / ".failed") == []
    assert handler.registry == {"app:latest": b"bytes"}


async def test_a_failure_that_somebody_has_taken_away_is_not_shown(spool_directory: Path, handler: Handler) -> None:
    handler.first("app.tar", ArchiveError("no archive"))
    handler.first("other.tar", ArchiveError("no archive"))
    drop(spool_directory, "app.tar")
    async with spooling(spool_directory, handler, rescan_seconds=0.1) as running:
        await running.until_done("app.tar")
        os.unlink(spool_directory / ".failed" / "app.tar")
        drop(spool_directory, "other.tar")
        await running.until_done("other.tar")
        await running.until(lambda: len(running.state.failures) == 1)
        assert [record["file"] for record in running.state.failures] == ["other.tar"]


async def test_a_hard_link_that_others_may_have_made_is_refused(spool_directory: Path, handler: Handler) -> None:
    spool_directory.chmod(0o1777)
    outside = spool_directory.parent / "outside"
    outside.write_bytes(b"somebody's")
    if os.geteuid() == 0:
        os.chown(outside, 65534, 65534)
    else:
        spool_directory.chmod(0o755)  # nobody else may write there then, nor can the file be another's
    os.link(outside, spool_directory / "app.tar")
    async with spooling(spool_directory, handler) as running:
        if os.geteuid() == 0:
            await running.until(lambda: running.state.deferred())
            (deferred,) = running.state.deferred()
            assert "it has another name elsewhere (a hard link)" in deferred.error
            assert handler.attempts == []
            outside.unlink()
        await running.until_done("app.tar")
    assert handler.pushes == [("app.tar", b"somebody's")]


async def test_failures_of_the_same_name_are_all_kept(spool_directory: Path, handler: Handler) -> None:
    handler.first("app.tar", ArchiveError("a"), ArchiveError("b"), ArchiveError("c"))
    async with spooling(spool_directory, handler) as running:
        for count, content in enumerate((b"1", b"2", b"3"), start=1):
            drop(spool_directory, "app.tar", content)
            await running.until(lambda count=count: len(running.ends) == count)
        await running.until(lambda: running.state.failed_count == 3)
    failed = spool_directory / ".failed"
    assert {path.name: path.read_bytes() for path in failed.iterdir() if not path.name.endswith(".json")} == {
        "app.tar.1": b"1",
        "app.tar.2": b"2",
        "app.tar": b"3",
    }
    assert [failure(spool_directory, name)["error"] for name in ("app.tar.1", "app.tar.2", "app.tar")] == list("abc")


async def test_a_file_that_is_called_like_an_error_record_is_not_written_over(
    spool_directory: Path, handler: Handler
) -> None:
    names = ("app.tar.error.json", "app.tar")
    async with spooling(spool_directory, handler) as running:
        for name in names:
            handler.first(name, ArchiveError("no archive"))
            drop(spool_directory, name, f"the bytes of {name}".encode())
            await running.until_done(name)
    kept = [path.read_bytes() for path in (spool_directory / ".failed").iterdir()]
    assert all(f"the bytes of {name}".encode() in kept for name in names)
    assert failure(spool_directory, "app.tar")["error"] == "no archive"


async def test_only_the_newest_receipts_are_kept(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler, receipts_kept=3, jobs_at_once=1) as running:
        for number in range(6):
            drop(spool_directory, f"app:{number}.tar")
        await running.until_done(*(f"app:{number}.tar" for number in range(6)))
    assert sorted(os.listdir(spool_directory / ".receipts")) == [f"app:{number}.tar.json" for number in (3, 4, 5)]


async def test_the_longest_names_have_records_too(spool_directory: Path, handler: Handler) -> None:
    good, bad = "a." + "x" * 253, "B" * 255
    drop(spool_directory, good)
    drop(spool_directory, bad)
    async with spooling(spool_directory, handler) as running:
        await running.until_done(good, bad)
    (name,) = os.listdir(spool_directory / ".receipts")
    assert len(name) == 255
    assert orjson.loads((spool_directory / ".receipts" / name).read_bytes())["file"] == good
    names = sorted(os.listdir(spool_directory / ".failed"))
    assert names[0] == bad
    assert names[1].startswith("BBB")
    assert names[1].endswith(".error.json")
    assert visible(spool_directory) == []


async def test_names_that_are_no_text_are_handled_and_shown_escaped(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    pushed, refused = os.fsdecode(b"app.\xff\n\x1b[31m"), os.fsdecode(b"\xfe\xe2\x80\xae<script>")
    caplog.set_level("INFO")
    drop(spool_directory, pushed)
    drop(spool_directory, refused)
    async with spooling(spool_directory, handler) as running:
        await running.until(lambda: len(running.ends) == 2)
        assert {end.name for end in running.ends} == {"app.\\xff\\n\\x1b[31m", "\\xfe\\u202e<script>"}
    assert handler.registry == {"app:latest": b"content"}
    (name,) = os.listdir(spool_directory / ".receipts")
    assert orjson.loads((spool_directory / ".receipts" / name).read_bytes())["file"] == "app.\\xff\n\x1b[31m"
    assert os.fsencode(refused) in os.listdir(os.fsencode(spool_directory / ".failed"))
    assert all(message.isprintable() for message in caplog.messages)


async def test_odd_entries_are_never_opened_and_warned_of_once(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    (spool_directory / "directory.tar").mkdir()
    (spool_directory / "link.tar").symlink_to("/etc/passwd")
    os.mkfifo(spool_directory / "pipe.tar")
    async with spooling(spool_directory, handler, rescan_seconds=0.05) as running:
        await running.until_ready()
        (spool_directory / "later~").symlink_to("/etc/passwd")
        os.rename(spool_directory / "later~", spool_directory / "later!")
        os.mkdir(spool_directory / "later-dir~")
        os.rename(spool_directory / "later-dir~", spool_directory / "later-dir")
        drop(spool_directory, "app.tar")
        await running.until_done("app.tar")
        await running.until(lambda: len(running.state.odd) == 5)
        first = running.state.last_scan
        await running.until(lambda: running.state.last_scan != first)
        assert [(entry.name, entry.kind) for entry in running.state.odd] == [
            ("directory.tar", "directory"),
            ("later!", "symbolic link"),
            ("later-dir", "directory"),
            ("link.tar", "symbolic link"),
            ("pipe.tar", "FIFO"),
        ]
    assert handler.attempts == ["app.tar"]
    warnings = [message for message in caplog.messages if "left alone" in message]
    assert len(warnings) == len(set(warnings)) == 5


async def test_what_is_no_file_is_told_of_when_it_is_made(spool_directory: Path, handler: Handler) -> None:
    async with spooling(spool_directory, handler) as running:
        await running.until_ready()
        (spool_directory / "link.tar").symlink_to("/etc/passwd")
        await running.until(lambda: [entry.name for entry in running.state.odd] == ["link.tar"])
    assert handler.attempts == []


async def test_the_log_has_one_line_at_the_start_and_one_at_the_end(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    drop(spool_directory, "app:1.tar", b"12345")
    async with spooling(spool_directory, handler) as running:
        await running.until_done("app:1.tar")
    records = [record for record in caplog.records if record.name == "registry_spooler.spool"]
    digest = str(Digest.of(b"12345"))
    messages = [re.sub(r"\d+\.\d s", "N s", record.getMessage()) for record in records]
    assert messages == [
        "pushing app:1.tar → app:1 (5 B)",
        f"pushed app:1@{digest} from app:1.tar: 5 B sent, 0 B skipped, N s",
    ]
    fields = records[1].__dict__["fields"]
    assert fields.pop("seconds") >= 0
    assert fields == {
        "event": "done",
        "file": "app:1.tar",
        "action": "push",
        "reference": "app:1",
        "attempt": 1,
        "digest": digest,
        "bytes_sent": 5,
        "bytes_skipped": 0,
    }


async def test_the_log_has_one_line_for_a_bundle_and_for_a_deletion(
    spool_directory: Path, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    drop(spool_directory, "@all.tar", b"12345")
    drop(spool_directory, "app:1!")
    async with spooling(spool_directory, handler, jobs_at_once=1) as running:
        await running.until_done("@all.tar", "app:1!")
    digests = [Digest.of(b"12345"), Digest.of(b"")]
    assert [re.sub(r"\d+\.\d s", "N s", message) for message in caplog.messages] == [
        "pushing @all.tar (5 B)",
        f"pushed 1 images, bundled:latest@{digests[0]} from @all.tar: 5 B sent, 0 B skipped, N s",
        "deleting app:1! → app:1",
        f"deleted app:1@{digests[1]} (app:1!), N s",
    ]


async def test_an_observer_that_fails_does_not_stop_the_spool(spool_directory: Path, handler: Handler) -> None:
    def fail(end: object) -> None:
        raise RuntimeError("a mistake")

    async with spooling(spool_directory, handler) as running:
        running.state.on_job_end = fail
        drop(spool_directory, "a.tar")
        drop(spool_directory, "b.tar")
        await running.until(lambda: len(handler.pushes) == 2 and running.state.queue_depth == 0)
    assert sorted(name for name, _ in handler.pushes) == ["a.tar", "b.tar"]


async def test_the_board_shows_what_runs_and_what_waits(spool_directory: Path, handler: Handler) -> None:
    seen: list[object] = []
    async with spooling(spool_directory, handler, jobs_at_once=1) as running:

        async def look(job: Job, file: OpenedFile, progress: Progress) -> None:
            progress.bytes_sent = 100
            (job_shown,) = running.state.running()
            seen.append((job_shown.name, job_shown.action, job_shown.size_bytes, job_shown.progress is progress))
            seen.append([waiting.name for waiting in running.state.waiting()])
            seen.append((running.state.queue_depth, running.state.waiting_count))
            seen.append(running.state.totals().bytes_sent)

        handler.first("a.tar", look)
        drop(spool_directory, "a.tar", b"1234")
        drop(spool_directory, "b.tar", b"56")
        drop(spool_directory, "c.tar", b"")
        await running.until_done("a.tar", "b.tar", "c.tar")
        assert seen == [("a.tar", Action.PUSH, 4, True), ["b.tar", "c.tar"], (3, 2), 100]
        assert running.state.totals().bytes_sent == 106
        assert running.state.queue_depth == 0
        assert running.state.oldest_waiting_seconds == 0
        assert running.state.last_success is not None
        assert [document["file"] for document in running.state.receipts] == ["a.tar", "b.tar", "c.tar"]


async def test_an_incomplete_file_that_was_not_renamed_has_time_to_settle(
    spool_directory: Path, handler: Handler
) -> None:
    handler.first("app.tar", ArchiveTruncated("it ends early"))
    async with spooling(spool_directory, handler, settle_seconds=30) as running:
        await running.until_ready()
        (spool_directory / "app.tar").write_bytes(b"first half, ")
        await running.until(lambda: [entry.reason for entry in running.state.deferred()] == [Reason.SETTLING])
        with (spool_directory / "app.tar").open("ab") as file:
            file.write(b"second half")
        await running.until_done("app.tar")
    assert handler.pushes == [("app.tar", b"first half, second half")]


async def test_an_incomplete_file_that_does_not_change_fails_after_settling(
    spool_directory: Path, handler: Handler
) -> None:
    handler.first("app.tar", ArchiveTruncated("it ends early"))
    async with spooling(spool_directory, handler, settle_seconds=0.3) as running:
        await running.until_ready()
        (spool_directory / "app.tar").write_bytes(b"half")
        await running.until_done("app.tar")
        assert running.outcomes == [("app.tar", Outcome.DEFERRED), ("app.tar", Outcome.FAILED)]
    assert handler.attempts == ["app.tar"]
    assert failure(spool_directory, "app.tar")["error"] == "it ends early"


async def test_an_incomplete_file_that_was_renamed_fails_at_once(spool_directory: Path, handler: Handler) -> None:
    handler.first("app.tar", ArchiveTruncated("it ends early"))
    async with spooling(spool_directory, handler, settle_seconds=30) as running:
        await running.until_ready()
        drop(spool_directory, "app.tar")
        await running.until_done("app.tar")
        assert running.outcomes == [("app.tar", Outcome.FAILED)]
