"""Requests to one registry: logged in, redirected and repeated within the rules.

The flow of a request: wait while its host asks to be left in peace → send it with the credentials of its
own origin → on 401 log in and send it once more → follow redirects, without credentials when they leave the
origin → repeat what can be repeated when the trouble may pass.

A refusal counts only when it is a registry's own (`proof`): where an answer does not show that, `/v2/` is asked, and
then the same request once more.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import anyio

from registry_spooler.errors import (
    AccessDenied,
    RegistryAnswer,
    RegistryError,
    RegistryProtocolError,
    RegistryUnreachable,
)
from registry_spooler.registry.address import Origin, RegistryAddress
from registry_spooler.registry.http.answer_errors import error_of, is_page, shows_registry
from registry_spooler.registry.http.retry import HostPauses, RetryPolicy, retry_after_seconds
from registry_spooler.registry.http.transport import (
    ANSWER_BYTES,
    Answer,
    AnswerStream,
    Request,
    StreamedBody,
    Transport,
    redirect_location,
)
from registry_spooler.registry.http.trust import TargetRules

_log: Final = logging.getLogger(__name__)

TRIES_AFTER_TIMEOUT: Final = 2
"""A connection may have died unseen, so a request that ran into a deadline is sent once more, and no oftener."""
MAX_REDIRECTS: Final = 10
LOGINS_MAX: Final = 4
"""For one request: Bearer, then Basic, and another login or two for the same host."""
_PAUSING: Final = frozenset({429, 503})

Access = tuple[str, ...]
"""The token scopes that a request needs, the main one first: `repository:<name>:pull,push`."""


class Login(Protocol):
    """Who holds the credentials of one registry."""

    @property
    def hint(self) -> str:
        """A hint for when the login was refused; empty: none."""

    @property
    def is_anonymous(self) -> bool:
        """Whether there is no login for this registry."""

    async def header(self, access: Access) -> str | None:
        """Return the `Authorization` header for the registry's own origin; None until it has asked for one."""

    async def answer_challenge(self, answer: Answer, access: Access, used: str | None, logins: int) -> bool:
        """Learn from a 401; True when the request should be sent again (`logins` times so far)."""

    def is_taken(self, answer: Answer) -> bool:
        """Return whether a 401 says that the login is valid but does not cover the request."""


@dataclass(slots=True)
class HttpClient:
    """Sends the requests to one registry: logged in, redirected and repeated."""

    address: RegistryAddress
    transport: Transport
    login: Login
    rules: TargetRules
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    pauses: HostPauses = field(default_factory=HostPauses)
    retries: Counter[str] = field(default_factory=Counter)

    async def call(
        self,
        method: str,
        url: str,
        *,
        access: Access,
        expected: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        certain: Collection[int] = (),
        limit_bytes: int = ANSWER_BYTES,
    ) -> Answer:
        """Send a request, and repeat it while that may help; any status but the expected ones is an error.

        `certain`: expected statuses (404, say) that count only when a registry itself sent them.
        """
        request = Request(method=method, url=url, headers=headers or {}, body=body)
        failures, proved = 0, False
        while True:
            try:
                answer = await self.once(request, access, limit_bytes=limit_bytes)
                doubtful = not proved and is_doubtful(answer)
                if answer.status in expected and not (doubtful and answer.status in certain):
                    return answer
                error = self.error_of(answer)
                if not doubtful or error.temporary:
                    raise error
                await self.prove()
                proved = True
            except RegistryError as error:
                failures += 1
                if not await self.rest(error, failures):
                    raise

    async def refusal(self, answer: Answer) -> RegistryError:
        """Return the error for an unwanted answer to a request that cannot be sent again."""
        error = self.error_of(answer)
        if not error.temporary and is_doubtful(answer):
            try:
                await self.prove()
            except RegistryError as trouble:
                return trouble
        return error

    async def ping(self) -> None:
        """Return when a registry answers and takes our login; any RegistryError says why not. Asked once."""
        answer = await self.once(Request(method="GET", url=self.address.base), ())
        if answer.status != 200:
            raise self._turned_away(answer)
        if is_page(answer.headers):
            raise self._no_registry("it answers with a web page")
        if not shows_registry(answer):
            await self._ask_for_nothing()

    async def prove(self) -> None:
        """Return when it is a registry that answers, and it takes our login; otherwise the error is temporary."""
        try:
            await self.ping()
        except RegistryError as error:
            if error.temporary:
                raise

    def _turned_away(self, answer: Answer) -> RegistryError:
        """Return why `/v2/` was refused; not temporary when a registry refuses it but serves its repositories."""
        error = self.error_of(answer)
        if isinstance(error, AccessDenied):
            error.temporary = True
        elif not error.temporary and not shows_registry(answer):
            return self._no_registry(f"it answers {answer.status} where a registry says that it is one")
        return error

    async def _ask_for_nothing(self) -> None:
        """Ask for a blob that cannot exist: whatever says yes to that says yes to everything."""
        url = self.address.url("registry-spooler", "blobs", f"sha256:{secrets.token_hex(32)}")
        answer = await self.once(Request(method="HEAD", url=url), (), log_in_again=False)
        if answer.status < 400:
            raise self._no_registry(f"it answers {answer.status} to whatever it is asked")
        if answer.status >= 500:
            raise self.error_of(answer)

    def _no_registry(self, reason: str) -> RegistryProtocolError:
        return RegistryProtocolError(str(self.address), reason)

    async def rest(self, error: RegistryError, failures: int) -> bool:
        """Sleep before another try; return False at once when there should be none."""
        requested = error.retry_after_seconds or 0.0
        timed_out = isinstance(error, RegistryUnreachable) and error.timed_out
        tries = min(self.policy.tries, TRIES_AFTER_TIMEOUT) if timed_out else self.policy.tries
        if not error.transient or failures >= tries or requested > self.policy.patience_seconds:
            return False
        self.retries["unreachable" if isinstance(error, RegistryUnreachable) else "status"] += 1
        # Debug only: what outlasts these tries is reported once, by the caller.
        delay = self.policy.backoff.delay_seconds(failures, retry_after_seconds=requested)
        _log.debug("%s; trying again in %.1f s", error, delay)
        await anyio.sleep(delay)
        return True

    async def once(
        self, request: Request, access: Access, *, log_in_again: bool = True, limit_bytes: int = ANSWER_BYTES
    ) -> Answer:
        """Send once (again after a login) and accept any status."""
        async with self.open(request, access, log_in_again=log_in_again) as stream:
            return await stream.finish(limit_bytes)

    @asynccontextmanager
    async def open(self, request: Request, access: Access, *, log_in_again: bool = True) -> AsyncIterator[AnswerStream]:
        """Send once and yield the answer while its body is still to be read.

        A 401 to a streamed body is yielded after the login: only its sender can send it again.
        """
        logins = 0
        for _ in range(MAX_REDIRECTS + LOGINS_MAX + 1):
            origin = Origin.of(request.url)
            await self._await_turn(request, origin)
            used = await self.login.header(access) if origin == self.address.origin else None
            async with self.transport.stream(_authorized(request, used)) as answer:
                self._note_pause(origin, answer)
                if answer.status == 401 and origin == self.address.origin and log_in_again and logins < LOGINS_MAX:
                    refusal = await answer.finish()
                    answer.logged_in_anew = await self.login.answer_challenge(refusal, access, used, logins)
                    logins += 1
                    if answer.logged_in_anew and not isinstance(request.body, StreamedBody):
                        continue
                if redirected := self._redirected(request, answer):
                    request = redirected
                    continue
                yield answer
                return
        raise RegistryProtocolError(str(self.address.origin), f"more than {MAX_REDIRECTS} redirects")

    def error_of(self, answer: Answer) -> RegistryError:
        """Return the error for an unwanted answer, as far as the answer itself tells."""
        if answer.status == 400 and b"HTTP request to an HTTPS server" in answer.content:
            return RegistryUnreachable(
                str(self.address.origin), "it speaks https, not http (give the address as https://…)"
            )
        if answer.status < 400 or answer.status >= 600:
            return self._no_registry(self._unexpected(answer))
        if not self.is_own(answer):
            return error_of(answer, self.rules, elsewhere=True)
        hint = self.login.hint if answer.status == 401 else ""
        error = error_of(answer, self.rules, hint=hint, anonymous=self.login.is_anonymous)
        if answer.status == 401 and self.login.is_taken(answer):
            error.temporary, error.hint = False, "the registry takes this login, but not for this repository"
        return error

    def _unexpected(self, answer: Answer) -> str:
        sentence = f"it answered {answer.status} to {answer.request.method} {self.rules.show(answer.url)}"
        if is_page(answer.headers):
            return f"{sentence}, with a web page"
        if 300 <= answer.status < 400 and answer.headers.get("Location", "").startswith("https:"):
            return f"{sentence}; it may want to be asked by https (give the address as https://…)"
        return sentence

    def is_own(self, answer: Answer) -> bool:
        """Return whether it came from the registry, and not from where the registry, or a neighbour, has sent us."""
        if Origin.of(answer.url) != self.address.origin:
            return False
        return not answer.request.is_redirected or answer.url.startswith(self.address.base)

    async def _await_turn(self, request: Request, origin: Origin) -> None:
        remaining = self.pauses.remaining_seconds(origin.authority)
        if remaining > self.policy.patience_seconds:
            raise RegistryAnswer(
                request.method,
                self.rules.show(request.url),
                429,
                message="not sent: the registry has asked to be left in peace",
                retry_after_seconds=remaining,
            )
        if remaining:
            await self.pauses.wait(origin.authority)

    def _note_pause(self, origin: Origin, answer: AnswerStream) -> None:
        if answer.status in _PAUSING and (seconds := retry_after_seconds(answer.headers)):
            self.pauses.pause(origin.authority, seconds)

    def _redirected(self, request: Request, answer: AnswerStream) -> Request | None:
        location = redirect_location(answer)
        if location is None or isinstance(request.body, StreamedBody):
            return None
        if request.method not in {"GET", "HEAD"} and answer.status not in {307, 308}:
            return None
        return dataclasses.replace(request, url=self.rules.redirect(request.url, location), is_redirected=True)


def is_doubtful(answer: Answer) -> bool:
    """Return whether a refusal may be a neighbour's, or may be meant for our login whatever it asks for."""
    return 400 <= answer.status < 500 and (answer.status == 403 or not shows_registry(answer))


def _authorized(request: Request, header: str | None) -> Request:
    if header is None:
        return request
    return dataclasses.replace(request, headers={**request.headers, "Authorization": header})
