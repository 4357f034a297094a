"""What one sample of a turn starts from."""

from __future__ import annotations

from dataclasses import dataclass

from project.tasks.drawing import Origin
from project.trajectory import ImageSegment, Prompt, SampleKey, TextSegment


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one sample of a turn starts from."""

    prompt: Prompt
    key: SampleKey
    text: str
    source: ImageSegment | None = None
    """The picture to look at; all requests of a turn have one, or none has."""

    def origin(self, written: TextSegment | None) -> Origin:
        """What a picture is drawn from, where that text was written: equal ones make equal contexts."""
        read = (self.text, None if self.source is None else id(self.source.pixels_HWC))
        return Origin(main=(*read, None if written is None else tuple(written.ids_T.tolist())), free=read)
