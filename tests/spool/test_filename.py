r"""The rule for file names, compared with the contract's sentences and with a second reading of them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.errors import InvalidFileName, InvalidReference
from registry_spooler.oci.reference import Reference
from registry_spooler.spool.filename import ARCHIVE_SUFFIXES, Action, FileName, is_ignored, published_name, spool_name

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")

components = st.from_regex(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda text: len(text) < 40)
repositories = st.lists(components, min_size=1, max_size=4).map("/".join)
plain_tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,60}", fullmatch=True)
tags = st.one_of(plain_tags, st.builds(str.__add__, plain_tags, st.sampled_from(SUFFIXES)))
"""Some of them end like an archive's name."""
names = st.text(
    alphabet=st.one_of(
        st.sampled_from("abzAZ019._-:\\%@!~/ \n\x00é漢\udcff"), st.characters(codec="utf-8", exclude_characters="/\x00")
    ),
    min_size=1,
    max_size=60,
).filter(lambda name: "/" not in name and "\x00" not in name)


@pytest.mark.parametrize(
    ("name", "reference", "is_archive"),
    [
        ("app:1.2.3.tar.gz", "app:1.2.3", True),
        ("hello.txt", "hello:latest", False),
        ("registry.k8s.io\\pause.tar", "registry.k8s.io/pause:latest", True),
        ("hello", "hello:latest", False),
        ("a\\b\\c:v1.tgz", "a/b/c:v1", True),
        ("app:1.2.3", "app:1.2.3", False),
        ("app:1.2.3.txt", "app:1.2.3.txt", False),
        ("app:1.2.3.zip", "app:1.2.3.zip", False),
        ("app.1.2.3.tar", "app:latest", True),
        ("app:tar", "app:tar", False),
        ("app:x.tar.tar", "app:x.tar", True),
        ("app:x.tar.bz2", "app:x", True),
        ("my%2Eapp.txt", "my.app:latest", False),
        ("my%2eapp.tar", "my.app:latest", True),
        ("app:1%2Etar", "app:1.tar", False),
        ("app%2Etar", "app.tar:latest", False),
        ("a%2Fb:1.tar", "a/b:1", True),
        ("%61pp", "app:latest", False),
        ("app.with:colon.tar", "app.with:colon", True),
    ],
)
def test_what_a_name_pushes_it_deletes_with_an_exclamation_mark(name: str, reference: str, is_archive: bool) -> None:
    pushed = FileName.parse(name)
    assert (str(pushed.reference), pushed.action, pushed.is_archive) == (reference, Action.PUSH, is_archive)
    deleted = FileName.parse(name + "!")
    assert (str(deleted.reference), deleted.action) == (reference, Action.DELETE)


@pytest.mark.parametrize(
    "name",
    [
        "UPPER.tar",
        "app:.tar",
        "app:",
        ":v1.tar",
        "a:b:c.tar",
        "a\\\\b.tar",
        "\\a.tar",
        "a\\.tar",
        "a:v1\\b.tar",
        "-app.tar",
        "app%.tar",
        "app%2.tar",
        "app%zz.tar",
        "app%00.tar",
        "app%0A",
        "app\n",
        "app:1\n.tar",
        "app:1.tar\n",
        "a b.tar",
        "é.tar",
        "app:é.tar",
        "%C3%A9.tar",
        "app%3A1.tar",
        "a%5Cb.tar",
        "app%21",
        "app!.tar",
        "app!!",
        "!",
        "a@b.tar",
        "app.tar.lz4",
        "app:v1.tar.LZMA",
        "app.tar.sha256",
        "app.tar.lz4!",
        "a..b:1",
        "a___b:1",
        "١:1",  # noqa: RUF001 - a digit, but not one of the grammar's
        "app:" + "x" * 129,
        "@bundle",
        "@bundle.txt",
        "@bundle.tar!",
        "@!",
        "%40bundle.tar",
        "\udcff.tar",
    ],
)
def test_a_name_that_does_not_fit_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(InvalidFileName) as caught:
        FileName.parse(name)
    assert str(caught.value).isprintable()
    assert caught.value.reason


def test_a_tag_that_ends_like_an_unknown_archive_is_escaped() -> None:
    assert FileName.parse("app:1.tar%2Elz4").reference == Reference("app", "1.tar.lz4")
    assert FileName.parse("app:1.tar.5").reference == Reference("app", "1.tar.5")
    assert spool_name(Reference("app", "1.tar.lz4"), "") == "app:1.tar%2Elz4"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bundle_is_an_archive_by_its_name(suffix: str) -> None:
    bundle = FileName.parse(f"@whatever: it \\ says{suffix}")
    assert (bundle.reference, bundle.is_bundle, bundle.is_archive) == (None, True, True)


def test_all_known_suffixes_and_no_others() -> None:
    assert set(ARCHIVE_SUFFIXES) == set(SUFFIXES)


@pytest.mark.parametrize(
    ("name", "ignored"), [("a.tar~", True), (".a.tar", True), ("a!~", True), ("~a.tar", False), ("a.tar", False)]
)
def test_ignored_names(name: str, ignored: bool) -> None:
    assert is_ignored(name) is ignored


@given(repositories, tags, st.sampled_from(("", "!", *SUFFIXES, *(suffix + "!" for suffix in SUFFIXES))))
def test_a_reference_finds_its_way_back(repository: str, tag: str, suffix: str) -> None:
    reference = Reference(repository, tag)
    name = spool_name(reference, suffix)
    parsed = FileName.parse(name)
    assert parsed.reference == reference
    assert parsed.action is (Action.DELETE if suffix.endswith("!") else Action.PUSH)
    assert parsed.is_archive is bool(suffix.removesuffix("!"))
    assert not is_ignored(name)
    assert "/" not in name


@given(repositories, st.sampled_from(SUFFIXES))
def test_without_a_tag_the_last_component_ends_at_its_first_dot(repository: str, suffix: str) -> None:
    head, _, last = repository.rpartition("/")
    expected = f"{head}/{last.split('.')[0]}" if head else last.split(".")[0]
    parsed = FileName.parse(repository.replace("/", "\\") + suffix)
    assert parsed.reference == Reference(expected, "latest")
    assert parsed.is_archive


@given(names)
def test_every_name_is_read_as_the_contract_says_or_refused(name: str) -> None:
    expected = second_reading(name)
    try:
        parsed = FileName.parse(name)
    except InvalidFileName as exc:
        assert expected is None
        assert str(exc).isprintable()
    else:
        assert (str(parsed.reference) if parsed.reference else "@") == expected
        assert parsed.name == name


def second_reading(name: str) -> str | None:
    """The contract's rule once more, by regular expressions: the reference, `@` for a bundle, None: refused."""
    archive = "|".join(re.escape(suffix) for suffix in sorted(SUFFIXES, key=len, reverse=True))
    if name.startswith("@"):
        return "@" if re.search(f"(?i:{archive})$(?!\n)", name) and not name.endswith("\n") else None
    found = re.fullmatch(
        rf"(?P<head>(?:[^\\/]*[\\/])*)(?P<base>[^:\\/]*?)(?:(?P<tag>:[^\\/]*?)(?i:{archive})?|(?<!:)(?:\.[^:\\/]*)?)!?",
        name,
        re.DOTALL,
    )
    if found is None or re.search(r"%(?![0-9A-Fa-f]{2})", name):
        return None
    base = found["base"] if found["tag"] else found["base"].split(".")[0]
    repository = unescape(found["head"].replace("\\", "/") + base)
    tag = unescape(found["tag"][1:]) if found["tag"] else "latest"
    component = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
    fits = re.fullmatch(rf"{component}(?:/{component})*", repository) and len(repository) <= 255
    return f"{repository}:{tag}" if fits and re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", tag) else None


def unescape(text: str) -> str:
    return re.sub("%(..)", lambda match: chr(int(match[1], 16)), text, flags=re.DOTALL)


def test_a_reference_without_a_tag_has_no_file_name() -> None:
    digest = Reference.parse("app@sha256:" + "0" * 64)
    with pytest.raises(InvalidReference):
        spool_name(digest)


def test_a_reference_that_is_too_long_for_a_file_name_is_refused() -> None:
    assert FileName.parse(spool_name(Reference("a" * 123, "b" * 127))).reference is not None
    with pytest.raises(InvalidReference, match="too long"):
        spool_name(Reference("a" * 124, "b" * 127))


@pytest.mark.parametrize(
    ("file", "wanted", "name"),
    [
        ("app.tar", None, "app.tar"),
        ("app.tar", "app:v5", "app:v5.tar"),
        ("app.tgz", "app2", "app2.tgz"),
        ("app.tar", "app:v5.tar.gz", "app:v5.tar.gz"),
        ("app.tar", "team/app:v5", r"team\app:v5.tar"),
        ("app.tar", r"team\app:v5", r"team\app:v5.tar"),
        ("notes.txt", "hello.txt", "hello.txt"),
        ("notes.txt", "team/notes:1", r"team\notes:1"),
        ("app.tar", "@all", "@all.tar"),
        ("app.tar", "app:v5!", "app:v5!"),
    ],
)
def test_an_archive_that_is_published_under_another_name_stays_one(file: str, wanted: str | None, name: str) -> None:
    assert name == published_name(file, wanted)


@pytest.mark.parametrize("name", ["app.tar.5", "app:1.tar.2.3", "app.tar.txt.old", "tar.lz4"])
def test_names_that_only_look_as_if_they_had_an_unknown_suffix(name: str) -> None:
    assert FileName.parse(name).reference is not None
