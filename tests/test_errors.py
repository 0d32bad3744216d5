"""The error tree: every class of it can be made, shown and sent to another process."""

from __future__ import annotations

import dataclasses
import importlib
import pickle
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import registry_spooler
from registry_spooler.errors import (
    AccessDenied,
    ArchiveError,
    ArchiveTruncated,
    InvalidReference,
    RegistryAnswer,
    RegistryUnreachable,
    SpoolerError,
)
from registry_spooler.oci.digest import Digest

DIGEST = Digest.parse(f"sha256:{'a' * 64}")
VALUES: dict[str, Any] = {"int": 404, "float": 1.5, "bool": True, "tuple[str, ...]": ("one",), "Digest": DIGEST}


def _subclasses(kind: type[SpoolerError]) -> Iterator[type[SpoolerError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _all() -> list[type[SpoolerError]]:
    for module in pkgutil.walk_packages(registry_spooler.__path__, "registry_spooler."):
        importlib.import_module(module.name)
    return sorted(set(_subclasses(SpoolerError)), key=lambda kind: kind.__name__)


def _made(kind: type[SpoolerError]) -> SpoolerError:
    """Return an error with a value of its own in each field."""
    return kind(
        **{
            field.name: VALUES.get(str(field.type).removesuffix(" | None"), f"<{field.name}>")
            for field in dataclasses.fields(kind)
        }
    )


@pytest.mark.parametrize("kind", _all(), ids=lambda kind: kind.__name__)
def test_every_error_is_a_sentence_of_its_fields_and_survives_pickling(kind: type[SpoolerError]) -> None:
    error = _made(kind)
    assert [] == [part for part in ("{", "}", " object at ") if part in str(error)]
    assert bool(dataclasses.fields(kind) or kind.sentence) == bool(str(error))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - the bytes are our own
    assert (kind, vars(error), str(error)) == (type(again), vars(again), str(again))
    assert repr(error) == f"{kind.__name__}({str(error)!r})"


def test_arguments_go_by_position_and_by_name() -> None:
    assert str(InvalidReference("a b", "a space")) == str(InvalidReference(text="a b", reason="a space"))
    with pytest.raises(TypeError):
        InvalidReference("a b")


def test_what_a_value_holds_is_no_template() -> None:
    assert "'{reason}' does not name an image: {text}" == str(InvalidReference("{reason}", "{text}"))


def test_a_text_is_quoted_without_its_control_characters() -> None:
    assert r"'a\x1b[2Jb' does not name an image: no" == str(InvalidReference("a\x1b[2Jb", "no"))


def test_where_stands_in_front_but_for_an_archive_that_is_cut_off() -> None:
    assert f"blobs/sha256/{'a' * 12}…: it is bad" == str(ArchiveError("it is bad", where=f"blobs/sha256/{'a' * 64}"))
    assert "it is cut off (byte 7)" == str(ArchiveTruncated("it is cut off", where="byte 7"))


@pytest.mark.parametrize(
    ("error", "temporary", "transient"),
    [
        (RegistryAnswer("PUT", "u", 503), True, True),
        (RegistryAnswer("PUT", "u", 429), True, True),
        (RegistryAnswer("PUT", "u", 507), True, False),
        (RegistryAnswer("PUT", "u", 407), True, False),
        (RegistryAnswer("PUT", "u", 413), False, False),
        (AccessDenied("PUT", "u", 401), True, False),
        (AccessDenied("PUT", "u", 403), False, False),
        (RegistryUnreachable("r", "refused"), True, True),
    ],
    ids=repr,
)
def test_which_errors_pass_by_themselves(error: SpoolerError, temporary: bool, transient: bool) -> None:
    assert (temporary, transient) == (error.temporary, error.transient)
