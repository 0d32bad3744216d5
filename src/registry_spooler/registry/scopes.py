"""Token scopes: `repository:<name>:pull,push`, merged, compared and put into order.

https://distribution.github.io/distribution/spec/auth/scope/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def merge(*groups: Iterable[str]) -> tuple[str, ...]:
    """All that the groups ask for, one scope per resource; the first stays first, as some servers read no other."""
    wanted: dict[str, list[str]] = {}
    for scope in (scope for group in groups for scope in group):
        resource, _, actions = scope.rpartition(":")
        known = wanted.setdefault(resource, [])
        known.extend(action for action in actions.split(",") if action and action not in known)
    return tuple(f"{resource}:{','.join(actions)}" for resource, actions in wanted.items())


def covers(granted: Iterable[str], needed: Iterable[str]) -> bool:
    """Does a token for `granted` do for `needed`?"""
    rights = _by_resource(granted)
    return all(actions <= rights.get(resource, frozenset()) for resource, actions in _by_resource(needed).items())


def _by_resource(scopes: Iterable[str]) -> Mapping[str, frozenset[str]]:
    return {
        resource: frozenset(actions.split(","))
        for resource, _, actions in (scope.rpartition(":") for scope in merge(scopes))
    }
