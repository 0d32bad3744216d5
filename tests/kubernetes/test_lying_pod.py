"""A pod that answers with anything: what reaches the terminal is harmless, and no program ends in a traceback."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry_spooler.cli.kubectl.spooler_commands import status_lines
from registry_spooler.kubernetes.wire import UnreadableAnswer
from support.cluster.apiserver import ApiServer
from support.cluster.terminal import Terminal

HOSTILE = "a\x1b[2J\x9b31m\u202eb\x07"
SHOWN = r"a\x1b[2J\x9b31m\u202eb\x07"
DIGEST = f"sha256:{'0' * 64}"


_LIAR = """#!{python} -S
import json, os, sys
answer, error, code = json.load(open({path!r}))
if "--version" in sys.argv:
    answer = "registry-client, version 9"
sys.stdout.write(answer)
sys.stdout.flush()
if error:
    sys.stderr.write(json.dumps({{"error": error, "kind": "Lie"}}) + "\\n")
else:
    sys.stderr.write(json.dumps({{"done": True, "stdout_bytes": len(answer.encode()), "code": code}}) + "\\n")
sys.exit(code)
"""


@pytest.fixture
def terminal(tmp_path: Path, kubeconfig: Path) -> Terminal:
    return Terminal(tmp_path, kubeconfig)


@pytest.fixture
def lying(api: ApiServer, tmp_path: Path) -> Callable[..., None]:
    """Have the pod answer with a document, or an error, whatever it is asked."""
    program, lie = tmp_path / "pod" / "registry-client", tmp_path / "pod" / "lie.json"
    program.parent.mkdir()
    program.write_text(_LIAR.format(python=sys.executable, path=str(lie)))
    program.chmod(0o755)
    api.environment["PATH"] = f"{program.parent}:/usr/bin:/bin"

    def tell(document: Any, *, error: str = "") -> None:
        lie.write_text(json.dumps([json.dumps(document), error, 1 if error else 0]))

    return tell


@pytest.mark.parametrize(
    ("arguments", "answer", "line"),
    [
        (("list",), [HOSTILE], SHOWN),
        (("tags", "catalog/app"), [HOSTILE], SHOWN),
        (
            ("failed",),
            [{"name": HOSTILE, "time": "2026-11-24T10:00:00Z", "error": HOSTILE, "attempts": 1}],
            f"{SHOWN}\t2026-11-24T10:00:00Z\t{SHOWN}",
        ),
        (("failed",), [{"name": "x", "error": "it has no record"}], "x\t\tit has no record"),
    ],
)
async def test_what_a_pod_says_cannot_steer_the_terminal(
    terminal: Terminal, lying: Callable[..., None], arguments: tuple[str, ...], answer: Any, line: str
) -> None:
    lying(answer)
    assert [line] == (await terminal.spool(*arguments)).lines


async def test_nor_can_its_json_its_errors_and_its_log(
    terminal: Terminal, lying: Callable[..., None], api: ApiServer
) -> None:
    lying([HOSTILE])
    done = await terminal.spool("list", "--json")
    assert [HOSTILE] == done.json
    assert done.stdout.decode().replace("\n", "").isprintable()
    lying(None, error=HOSTILE)
    assert f"kubectl spool: {SHOWN}\n" == (await terminal.spool("list", code=1)).stderr
    api.log = HOSTILE.encode() + b"\n"
    assert [SHOWN] == (await terminal.spool("logs")).lines


def _inspected(**other: Any) -> dict[str, Any]:
    digest = "sha256:" + "0" * 64
    return {"reference": "x:1", "digest": digest, "media_type": "m", "size_bytes": 1, "platforms": []} | other


@pytest.mark.parametrize(
    ("arguments", "answer", "sentence"),
    [
        (("list",), {"a": 1}, "list is not a list of texts"),
        (("list", "--tags"), ["Not/A:Reference@"], "list is not a list of images"),
        (("tags", "x"), [1], "tags is not a list of texts"),
        (("inspect", "x"), [], "inspect is not an object"),
        (("inspect", "x"), _inspected(size_bytes="z"), "inspect.size_bytes is not a number"),
        (("inspect", "x"), _inspected(reference=HOSTILE), "inspect.reference is not a reference"),
        (("inspect", "x"), _inspected(digest=HOSTILE), "inspect.digest is not a digest"),
        (("delete", "x"), {"digest": "lies"}, "delete.digest is not a digest"),
        (("status",), {"version": "1", "queue": [], "registry": {"address": "x"}}, "status.queue is not an object"),
        (("failed",), {"name": "x"}, "failed is not a list"),
        (("failed",), [{"name": 1}], "failed[0].name is not a text"),
        (("failed",), [{"name": "x", "error": "y", "attempts": 1, "time": HOSTILE}], "is not a record of a failure"),
    ],
)
async def test_an_answer_of_another_shape_is_a_sentence(
    terminal: Terminal, lying: Callable[..., None], arguments: tuple[str, ...], answer: Any, sentence: str
) -> None:
    lying(answer)
    done = await terminal.spool(*arguments, code=1)
    assert b"" == done.stdout
    assert done.stderr.startswith("kubectl spool: the pod's answer cannot be read: ")
    assert 1 == done.stderr.count("\n")
    assert sentence in done.stderr


_KEYS = st.sampled_from(
    ["queue", "registry", "spool", "checks", "running", "waiting", "deferred", "failures", "receipts", "file", "remote"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=4),
)


def _transfer(text: str, *, ahead: int | None) -> dict[str, Any]:
    sizes = {"bytes_total": 2_000_000, "bytes_done": 500_000, "bytes_sent": 9, "seconds": 1.5}
    return {"command": text, "reference": text, "ahead": ahead, **sizes}


_TRUE: dict[str, Any] = {
    "queue": {"running": 1, "waiting": 1, "deferred": 1},
    "registry": {"address": HOSTILE, "up": True},
    "spool": {"failed_files": 0},
    "checks": {HOSTILE: {"state": "failing", "detail": HOSTILE}},
    "running": [
        {"file": HOSTILE, "action": HOSTILE, "bytes_total": 0, "bytes_done": 9, "bytes_sent": 9, "seconds": 1.5}
    ],
    "waiting": [{"file": HOSTILE, "seconds": 1, "behind": HOSTILE}],
    "deferred": [{"file": HOSTILE, "next_try_in_seconds": 0, "error": HOSTILE}],
    "failures": [{"file": HOSTILE, "error": HOSTILE}],
    "receipts": [{"file": HOSTILE, "digest": DIGEST}],
    "remote": {
        "running": 1,
        "waiting": 1,
        "transfers": [_transfer(HOSTILE, ahead=2), _transfer(HOSTILE, ahead=None)],
        "pushed": [{"reference": HOSTILE, "digest": DIGEST}],
    },
}


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # a busy machine may take its time
@given(st.dictionaries(st.sampled_from(sorted(_TRUE)), _JSON))
def test_a_status_of_any_shape_is_shown_or_refused(lies: dict[str, Any]) -> None:
    try:
        lines = list(status_lines(_TRUE | lies))
    except UnreadableAnswer:
        return
    assert all(line.isprintable() for line in lines)


def test_a_status_as_it_should_be_is_shown() -> None:
    lines = list(status_lines(_TRUE))
    assert (
        f"registry {SHOWN} up; 1 running, 1 waiting, 1 deferred, 0 failed; from outside: 1 running, 1 waiting"
        == lines[0]
    )
    assert f"trouble: {SHOWN}: {SHOWN}" == lines[1]
    assert f"deferred  {SHOWN}  next try now: {SHOWN}" in lines
    assert f"running   {SHOWN}  {SHOWN} from outside, 25 % of 1.9 MiB, 9 B sent, 1.5 s" in lines
    assert f"waiting   {SHOWN}  {SHOWN} from outside, behind 2 others" in lines
    assert f"done      {SHOWN}  {DIGEST} from outside" in lines
    earlier = {key: value for key, value in _TRUE.items() if key != "remote"}
    assert "0 failed" == next(status_lines(earlier))[-8:]
