"""The settings of a registry: flags, environment variables, and secrets that stay out of sight."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from registry_spooler.cli.registry_options import RegistrySettings, mask, registry_options

PREFIXES = ("REGISTRY_CLIENT", "REGISTRY_SPOOLER")


def _settings(*arguments: str, **environment: str) -> RegistrySettings:
    taken: list[RegistrySettings] = []

    @click.command()
    @registry_options(*PREFIXES)
    def command(**values: Any) -> None:
        taken.append(RegistrySettings.take(values))
        assert values == {}

    result = CliRunner().invoke(command, arguments, env=environment)
    if result.exit_code:
        raise click.UsageError(result.output)
    return taken[0]


def test_what_holds_when_nothing_is_said():
    assert _settings() == RegistrySettings()
    assert _settings().client().address == "http://localhost:5000"


def test_flags():
    settings = _settings("-r", "r.example", "-u", "me", "--password-file", "/p", "--chunk-size", "5MiB", "--tries", "2")
    expected = RegistrySettings(
        registry="r.example", username="me", password_file=Path("/p"), chunk_size_bytes=5 << 20, tries=2
    )
    assert settings == expected
    assert settings.client().address == "https://r.example"


@pytest.mark.parametrize(
    ("arguments", "environment", "registry"),
    [
        ((), {"REGISTRY_SPOOLER_REGISTRY": "one.example"}, "one.example"),
        ((), {"REGISTRY_SPOOLER_registry": "one.example"}, "one.example"),
        ((), {"REGISTRY_SPOOLER_REGISTRY": "one.example", "REGISTRY_CLIENT_REGISTRY": "two.example"}, "two.example"),
        ((), {"REGISTRY_SPOOLER_REGISTRY": "one.example", "REGISTRY_CLIENT_registry": "two.example"}, "two.example"),
        (("-r", "three.example"), {"REGISTRY_CLIENT_REGISTRY": "two.example"}, "three.example"),
    ],
)
def test_the_environment(arguments, environment, registry):
    assert _settings(*arguments, **environment).registry == registry


def test_several_words_in_the_environment():
    settings = _settings(
        REGISTRY_SPOOLER_chunk_size="1M", REGISTRY_SPOOLER_DOCKER_CONFIG="/c", REGISTRY_CLIENT_TRIES="9"
    )
    assert (settings.chunk_size_bytes, settings.docker_config, settings.tries) == (1 << 20, Path("/c"), 9)


@pytest.mark.parametrize(
    ("arguments", "environment", "login"),
    [
        (("-t", "mine"), {"USERNAME": "pod", "PASSWORD_FILE": "/pod"}, {"token": "mine"}),
        (("-u", "me", "-p", "mine"), {"TOKEN": "pod"}, {"username": "me", "password": "mine"}),
        (("-u", "me", "-p", "mine"), {"TOKEN_FILE": "/pod"}, {"username": "me", "password": "mine"}),
        (("-u", "me"), {"PASSWORD": "pod", "TOKEN": "pod"}, {"username": "me", "password": "pod"}),
        (("--password-file", "/mine"), {"USERNAME": "pod", "PASSWORD": "pod"},
         {"username": "pod", "password_file": Path("/mine")}),
        (("--token-file", "/mine"), {"TOKEN": "pod"}, {"token_file": Path("/mine")}),
        (("--docker-config", "/mine"), {"USERNAME": "pod", "PASSWORD": "pod"}, {"docker_config": Path("/mine")}),
        (("--docker-config", "/mine", "-t", "mine"), {}, {"docker_config": Path("/mine"), "token": "mine"}),
    ],
)  # fmt: skip
def test_a_login_on_the_command_line_beats_every_other_of_the_environment(arguments, environment, login):
    variables = {f"REGISTRY_SPOOLER_{name}": value for name, value in environment.items()}
    assert _settings(*arguments, **variables) == RegistrySettings(**login)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("-t", "secret", "-u", "me", "--password-file", "/p"), "do not go together"),
        (("-u", "me"), "a user name needs a password"),
        (("-p", "secret"), "a password needs a user name"),
        (("-r", "https://me:secret@h"), "a login is not part of it; give --username"),
        (("-r", "http://h", "-c", "/ca.pem"), "a certificate needs https"),
        (("--chunk-size", "1"), "not between"),
        (("--chunk-size", "much"), "not a size"),
        (("--upload-form", "letter"), "upload-form"),
    ],
)
def test_settings_that_cannot_be_meant(arguments, sentence):
    with pytest.raises(click.UsageError, match=sentence) as caught:
        _settings(*arguments)
    assert "secret" not in str(caught.value)


def test_no_secret_in_the_settings_words():
    assert "secret" not in repr(RegistrySettings(username="me", password="secret", token="secret"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"p\0-p\0secret\0", b"p\0-p\0******\0"),
        (b"p\0-psecret\0x\0", b"p\0-p******\0x\0"),
        (b"p\0--password=secret\0", b"p\0--password=******\0"),
        (b"p\0/path/secret\0", b"p\0/path/secret\0"),
        (b"p\0x\0", b"p\0x\0"),
    ],
)
def test_masks(before, after):
    assert mask(before, [b"secret"]) == after


def test_a_secret_given_as_an_argument_leaves_the_process_list():
    program = "import sys; from registry_spooler.cli.registry_options import hide_arguments; hide_arguments(['s3cret'])"
    shown = "; print(open('/proc/self/cmdline').read())"
    run = subprocess.run(
        [sys.executable, "-c", program + shown, "--password=s3cret"], check=True, capture_output=True, text=True
    )
    assert "--password=******" in run.stdout
    assert "--password=s3cret" not in run.stdout
