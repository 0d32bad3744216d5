"""Which cluster, namespace, pods and container: the options that commands share, named as kubectl names them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import click

from registry_spooler.cli.authorities import without_authorities
from registry_spooler.cli.printing import warn
from registry_spooler.text import count_text, quoted

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from registry_spooler.client import SpoolerClient
    from registry_spooler.kubernetes.cluster_errors import KubeError


_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG]?)(i?)(?:B?(?:/s)?)?")
_FACTORS: Final = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3}


class Rate(click.ParamType[float]):
    """Bytes per second: `500k`, `2M`, `1.5MiB/s`."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it; a usage error when it is none."""
        if isinstance(value, float):
            return value
        matched = _RATE.fullmatch(str(value).strip())
        if matched is None or (rate := _rate(*matched.groups())) <= 0:
            self.fail(f"{quoted(str(value))} is not a rate; write 500k, 2M or 1.5MiB/s", param, ctx)
        return rate


def _rate(number: str, unit: str, binary: str) -> float:
    return float(number) * float((1024 if binary else 1000) ** _FACTORS[unit])


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
rate_option = click.option(
    "--rate-limit", type=Rate(), metavar="RATE", help="Send no faster than this: 500k, 2M (bytes per second)."
)

P = ParamSpec("P")
T = TypeVar("T")

_FLAGS = (
    click.option("-n", "--namespace", help="Namespace of the spooler (default: the context's)."),
    click.option("--context", help="Context of the kubeconfig to use."),
    click.option("--kubeconfig", type=click.Path(path_type=Path), help="Path of the kubeconfig."),
    click.option(
        "-l", "--selector", help="Label selector for the spooler's pods.  [app.kubernetes.io/name=registry-spooler]"
    ),
    click.option("-c", "--container", help="Name of the spooler's container.  [spooler]"),
    click.option("--pod", help="Name of the pod to use (default: the first by name)."),
)


def _tell(error: KubeError) -> None:
    warn(f"{error}; reconnecting")


@dataclass(slots=True)
class _Ahead:
    """Tells how many transfers come first, as they become fewer: several of one push may wait at once."""

    told: int | None = None

    def tell(self, ahead: int) -> None:
        """Take the news of one of them."""
        if self.told is None or ahead < self.told:
            self.told = ahead
            warn(f"{count_text(ahead, 'transfer')} ahead of yours; waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTarget:
    """What the options say; None is what was not said."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: Path | None = None
    selector: str | None = None
    container: str | None = None
    pod: str | None = None

    def connect(
        self, *, bytes_per_second: float | None = None, on_retry: Callable[[KubeError], None] = _tell
    ) -> AbstractAsyncContextManager[SpoolerClient]:
        """The client for it; broken connections are told on standard error, or to `on_retry`."""
        with without_authorities():
            from registry_spooler.client import SpoolerClient

        said = {name: value for name, value in self.to_dict().items() if value is not None}
        on_waiting = _Ahead().tell
        return SpoolerClient.connect(
            bytes_per_second=bytes_per_second, on_retry=on_retry, on_waiting=on_waiting, **said
        )

    def to_dict(self) -> dict[str, Any]:
        """Its fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def kubectl_flags(self) -> list[str]:
        """The same for kubectl."""
        said = {"namespace": self.namespace, "context": self.context, "kubeconfig": self.kubeconfig}
        return [f"--{name}={value}" for name, value in said.items() if value is not None]


def target_options(command: Callable[Concatenate[ClusterTarget, P], T]) -> Callable[P, T]:
    """Give a command the options, and its function the Target that they say; what the group was told counts too."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        given: dict[str, Any] = {field.name: kwargs.pop(field.name) for field in fields(ClusterTarget)}
        said = {name: value for name, value in given.items() if value is not None}
        context = click.get_current_context()
        before = context.find_object(ClusterTarget) or ClusterTarget()
        context.obj = replace(before, **said)
        return command(context.obj, *args, **kwargs)

    for option in reversed(_FLAGS):
        wrapped = option(wrapped)
    return wrapped
