"""What may be in the end, told from what was done alone.

A `Content` is what stood under a name for a while. One that nobody but the spooler can have taken away is *certain*: it
has to be pushed, or to fail if it is bad. One that was replaced, removed or appended to while it may have been waiting
may have been pushed or not. So a tag shows its last certain content, or one of the uncertain ones that came later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chaos.payloads import Payload, Reference, Shown


@dataclass(slots=True, kw_only=True, eq=False)
class Content:
    """What stood under a name; `order` counts arrivals."""

    payload: Payload
    order: int
    renamed: bool
    """Did it arrive by a rename, and has nobody touched it since?"""
    certain: bool = True
    blurred: bool = False
    """Its inode was changed (chmod), so that a later start cannot tell when it arrived."""

    @property
    def name(self) -> str:
        return self.payload.name


class Model:
    """All contents in the order of their arrival."""

    def __init__(self) -> None:
        self.contents: list[Content] = []

    def arrive(self, payload: Payload, *, renamed: bool) -> Content:
        """A file is complete under its name."""
        content = Content(payload=payload, order=len(self.contents), renamed=renamed)
        self.contents.append(content)
        return content

    def last(self, name: str) -> Content | None:
        """What stood last under that name."""
        return next((content for content in reversed(self.contents) if content.name == name), None)

    def doubt(self, name: str) -> None:
        """What stands under that name is taken away or changed by a user: it may have been pushed before, or not."""
        if (content := self.last(name)) is not None:
            content.certain = False

    def references(self) -> set[Reference]:
        """All images that any file was about."""
        return {reference for content in self.contents for reference in content.payload.shows}

    def may_show(self, reference: Reference) -> set[Shown | None]:
        """What the tag may show in the end; None: it may be gone."""
        allowed: set[Shown | None] = set()
        about = [content for content in self.contents if reference in content.payload.shows]
        for content in reversed(about):
            allowed.add(content.payload.shows[reference])
            if content.certain and not content.blurred:
                break
        else:
            allowed.add(None)
        return allowed | {content.payload.shows[reference] for content in about if content.blurred}

    def in_order(self) -> list[Content]:
        """Those whose pushes can be told apart and have to come in order: the only ones about their images."""
        single = [content for content in self.contents if len(content.payload.shows) == 1]
        return [content for content in single if self._is_alone(content) and content.renamed and content.certain]

    def _is_alone(self, content: Content) -> bool:
        (reference,) = content.payload.shows
        others = (other for other in self.contents if other is not content)
        alone = not any(reference in other.payload.shows for other in others)
        return alone and not content.blurred and content.payload.shows[reference] is not None

    def failing(self, *, certain: bool) -> Iterable[Content]:
        """What is to be in `.failed`, or may be."""
        return [content for content in self.contents if not content.payload.is_good and content.certain >= certain]
