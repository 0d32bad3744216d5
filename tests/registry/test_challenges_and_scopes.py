"""What a 401 may say, and token scopes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry_spooler.registry.auth.login import Challenge, parse_challenges
from registry_spooler.registry.auth.tokens import Token, covers, merge

X, Y = Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})
BEARER = Challenge("bearer", {"realm": "https://auth/token", "service": "s", "scope": "repository:a:pull,push"})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], ()),
        ([""], ()),
        (['Bearer realm="https://auth/token",service="s",scope="repository:a:pull,push"'], (BEARER,)),
        (['bearer Realm="https://auth/token" , Service=s , SCOPE="repository:a:pull,push"'], (BEARER,)),
        (['BEARER realm = "https://auth/token", service= "s", scope ="repository:a:pull,push"'], (BEARER,)),
        (["Basic"], (Challenge("basic"),)),
        (['Basic realm="a \\"b\\", with commas"'], (Challenge("basic", {"realm": 'a "b", with commas'}),)),
        (['Basic realm="x", Bearer realm="y"'], (X, Y)),
        (['Basic realm="x"', 'Bearer realm="y"'], (X, Y)),
        (["Basic, Bearer realm=y"], (Challenge("basic"), Y)),
        (['Negotiate, Bearer realm="y"'], (Challenge("negotiate"), Y)),
        (['Negotiate oYG2MIGzoAMKAQ==, Bearer realm="y"'], (Challenge("negotiate"), Y)),
        (['Bearer realm="y",error="invalid_token"'], (Challenge("bearer", {"realm": "y", "error": "invalid_token"}),)),
        (['Bearer realm="y",scope=""'], (Challenge("bearer", {"realm": "y", "scope": ""}),)),
        (["Bearer"], (Challenge("bearer"),)),
        (['Bearer realm="unfinished'], (Challenge("bearer"),)),
    ],
)  # fmt: skip
def test_challenges(headers, expected):
    assert parse_challenges(headers)[: len(expected) or None] == expected


@given(st.lists(st.text(max_size=200), max_size=3))
def test_no_header_breaks_the_parser(headers):
    assert all(challenge.scheme == challenge.scheme.lower() for challenge in parse_challenges(headers))


def test_several_scopes_in_a_challenge():
    challenge = Challenge("bearer", {"scope": "repository:a:pull repository:b:pull,push"})
    assert challenge.scopes == ("repository:a:pull", "repository:b:pull,push")


def test_merging_keeps_the_first_scope_first():
    merged = merge(("repository:a:pull,push",), ("repository:b:pull", "repository:a:delete,pull"))
    assert merged == ("repository:a:pull,push,delete", "repository:b:pull")


def test_what_a_token_does_for():
    granted = ("repository:a:pull,push", "registry:catalog:*")
    assert covers(granted, ("repository:a:pull",))
    assert covers(granted, ())
    assert not covers(granted, ("repository:a:delete",))
    assert not covers(granted, ("repository:b:pull",))


@pytest.mark.parametrize(
    ("content", "value", "life"),
    [
        (b'{"token":"a"}', "a", 60),
        (b'{"token":"a","access_token":"b","expires_in":300}', "b", 300),
        (b'{"access_token":"b","expires_in":5,"issued_at":"1970-01-01T00:00:00Z"}', "b", 60),
        (b'{"token":"a","expires_in":"300"}', "a", 60),
        (b'{"token":"a","expires_in":true}', "a", 60),
    ],
)
def test_tokens(content, value, life):
    token = Token.read(content, (), now=1000.0)
    assert token is not None
    assert (token.value, token.renew_at, token.expires_at) == (value, 1000 + 0.8 * life, 1000 + life)
    assert value not in repr(token).replace("value", "").replace("at=", "")[:20]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"token":""}', b'{"token":1}', b'{"token":"a\\r\\nb"}'])
def test_what_is_no_token(content):
    assert Token.read(content, (), now=0.0) is None
