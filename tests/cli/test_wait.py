"""`wait`: until a spool file is done or has failed."""

from __future__ import annotations

import pytest

from support.programs.running_spooler import RunningSpooler, Spool


@pytest.fixture
def spool(tmp_path):
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool")


@pytest.fixture
def spooler(spool, registry):
    with RunningSpooler(spool, registry.url) as running:
        yield running


@pytest.fixture
def waiting(client, spool):
    return ("wait", "--timeout", "30", "--directory", str(spool.folder))


@pytest.mark.usefixtures("spooler")
def test_a_file_that_is_done(client, spool, waiting, repository):
    name = f"{repository.replace('/', chr(92))}:v1.txt"
    spool.drop(name, b"hello\n")

    receipt = client.json(*waiting, "--", name)

    assert receipt["reference"] == f"{repository}:v1.txt"
    assert receipt == spool.receipt(name)


@pytest.mark.usefixtures("spooler")
def test_a_file_that_has_failed(client, spool, waiting):
    spool.drop("Not A Name.tar", b"")

    done = client.run(*waiting, "Not A Name.tar", code=1)

    assert b"upper-case" in done.stdout
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("registry-client: 'Not A Name.tar' failed: ")


@pytest.mark.usefixtures("spooler")
def test_a_path_is_a_name_too(client, spool, repository):
    name = f"{repository.replace('/', chr(92))}.txt"
    spool.drop(name, b"hello\n")

    assert (
        client.json("wait", "--json", "--timeout", "30", str(spool.folder / name))["reference"]
        == f"{repository}:latest"
    )


def test_a_file_that_is_not_there(client, waiting):
    error = client.error(*waiting, "nothing.txt", code=3)
    assert f"'{waiting[-1]}/nothing.txt': there is no such file in the spool" == error
    error = client.error("wait", "-d", "/no/such/spool", "nothing.txt", code=3)
    assert "'/no/such/spool/nothing.txt': there is no such directory; choose the spool's with -d" == error


@pytest.mark.usefixtures("spooler")
def test_an_outcome_from_before_does_not_count(client, spool, waiting, repository):
    name = f"{repository.replace('/', chr(92))}.txt"
    spool.drop(name, b"hello\n")
    receipt = client.json(*waiting, name)

    assert client.json(*waiting, "--since", receipt["finished"], name) == receipt
    assert "from before" in client.error(*waiting, "--since", "2999-01-01T00:00:00Z", name, code=3)


def test_a_wait_that_takes_too_long(client, spool, repository):
    """Nobody works on the spool: no spooler runs."""
    spool.drop("hello.txt", b"hello\n")

    error = client.error("wait", "--timeout", "0.2", "--directory", str(spool.folder), "hello.txt", code=1)

    assert error.startswith("'hello.txt' is neither done nor failed after 0.2 seconds")


def test_a_time_that_is_none(client, waiting):
    assert "is not a time" in client.error(*waiting, "--since", "yesterday", "hello.txt", code=2)
