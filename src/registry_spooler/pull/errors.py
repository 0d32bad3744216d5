"""What can go wrong in a pull apart from the registry's own errors."""

from __future__ import annotations

from registry_spooler.digest import Digest
from registry_spooler.errors import SpoolerError


class PlatformNotFound(SpoolerError):
    """The image does not exist for that platform, or for several when none was asked for."""

    def __init__(self, image: str, wanted: str, available: tuple[str, ...]) -> None:
        super().__init__(image, wanted, available)
        self.image = image
        self.wanted = wanted
        self.available = available

    def __str__(self) -> str:
        choice = ", ".join(self.available) or "none at all"
        return f"{self.image} is not there for {self.wanted}; choose with --platform from: {choice}"


class InvalidPlatform(SpoolerError):
    """A platform that is not `os/architecture[/variant]`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"{self.text[:100]!r} is not a platform; write it as os/architecture[/variant], such as linux/arm64"


class NotAnImage(SpoolerError):
    """An artifact that no container engine could load."""

    def __init__(self, image: str, kind: str) -> None:
        super().__init__(image, kind)
        self.image = image
        self.kind = kind

    def __str__(self) -> str:
        return f"{self.image} is not a container image but {self.kind[:100]!r}; pull it with --format oci, or --unpack"


class NotOneFile(SpoolerError):
    """More or less than the one layer that `--unpack` can give back."""

    def __init__(self, image: str, layers: int) -> None:
        super().__init__(image, layers)
        self.image = image
        self.layers = layers

    def __str__(self) -> str:
        return f"{self.image} has {self.layers} layers, and only an image of one file can be unpacked; pull the archive"


class IncompleteImage(SpoolerError):
    """The registry lacks something that the image's own manifest names."""

    def __init__(self, image: str, digest: Digest) -> None:
        super().__init__(image, digest)
        self.image = image
        self.digest = digest

    def __str__(self) -> str:
        return f"the registry holds {self.image} without its part {self.digest}; push the image again"


class ImageTooLarge(SpoolerError):
    """More manifests than an image can sensibly have."""

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(image, reason)
        self.image = image
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.image} is not pulled: {self.reason}"


class WrongContent(SpoolerError):
    """A layer that does not decompress to what the image's config says of it."""

    def __init__(self, image: str, reason: str) -> None:
        super().__init__(image, reason)
        self.image = image
        self.reason = reason

    def __str__(self) -> str:
        return f"the layer of {self.image} is damaged: {self.reason}"


class OutputFailed(SpoolerError):
    """What was pulled cannot be written where it should go."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot write {self.name}: {self.reason}"


class OutputClosed(Exception):
    """Whoever read what we write has gone. That is their decision, no error to speak of."""
