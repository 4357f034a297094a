"""What a model reads before it writes, draws or answers. Training, inference and judges all read through here.

The order is always: system prompt, picture through the autoencoder, picture through the vision encoder, text.
Guidance compares with the state before the text (`text_free`) and, where image guidance is on, with the texts alone
(`image_free`). What several samples read is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from project.models.base import UnifiedModel
from project.models.context import Context, Contexts
from project.models.transforms import PictureTransform, normalise


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one sample reads."""

    text: str
    picture: Tensor | None = None
    """uint8 [height, width, 3], resized as the model reads it (`UnifiedModel.picture_transforms`).

    All samples have one, or none has.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Contexts with one row per different thing that was read; `row_N` and `base_N` are the samples' rows."""

    main: Context
    text_free: Context
    image_free: Context | None
    row_N: Tensor
    base_N: Tensor

    def contexts(self, main: Context, room: int = 0, part: slice | list[int] = slice(None)) -> Contexts:
        """What guidance reads: `main` (a row per sample), beside the samples' other contexts with `room` in each.

        `part`: the samples that `main` has rows of.
        """
        return Contexts(
            main=main,
            text_free=self.text_free.select(self.base_N[part], room=room),
            image_free=None if self.image_free is None else self.image_free.select(self.row_N[part], room=room),
        )


def read(
    model: UnifiedModel,
    readings: Sequence[Reading],
    empty: Callable[[int], Context],
    *,
    system: str = "",
    latents: bool = True,
    image_free: bool = False,
    vit: PictureTransform | None = None,
) -> Read:
    """Read everything that comes before what the model generates.

    Args:
        readings: one per sample.
        empty: makes an empty context of one row with the given room.
        system: system prompt; none if empty.
        latents: read pictures through the autoencoder too, to draw from them; without, they are only looked at.
        image_free: read the texts alone as well.
        vit: how pictures are resized for the vision encoder; the checkpoint's own way if None.

    Raises:
        ValueError: if some samples have a picture and others have none, or pictures read through the autoencoder
            differ in size.
    """
    pictures = list({id(r.picture): r.picture for r in readings if r.picture is not None}.values())
    if pictures and any(r.picture is None for r in readings):
        raise ValueError("samples with and without a picture cannot be read together")
    picture_row = {id(picture): row for row, picture in enumerate(pictures)}
    units = list({(r.text, id(r.picture)): r for r in readings}.values())
    unit_row = {(r.text, id(r.picture)): row for row, r in enumerate(units)}
    ids = [model.encode_text(unit.text) for unit in units]
    room = model.text_room(max(map(len, ids)))

    def base_rows(some: Sequence[Reading]) -> Tensor:
        return torch.tensor([picture_row.get(id(r.picture), 0) for r in some], device=model.device)

    announced = [model.encode_text(system)] if system else []
    before = empty(sum(model.text_room(len(ids_T)) for ids_T in announced) + room)
    if announced:
        before = model.append_text(before, announced)
    base = before
    if pictures:
        base = _look(model, before, pictures, latents, vit or model.picture_transforms[1])
    main = model.append_text(base.select(base_rows(units), room=room), ids)
    texts_alone = None
    if image_free:
        texts_alone = model.append_text(before.select(torch.zeros_like(base_rows(units)), room=room), ids)
    return Read(
        main=main,
        text_free=base,
        image_free=texts_alone,
        row_N=torch.tensor([unit_row[r.text, id(r.picture)] for r in readings], device=model.device),
        base_N=base_rows(readings),
    )


def _look(
    model: UnifiedModel, context: Context, pictures: Sequence[Tensor], latents: bool, vit: PictureTransform
) -> Context:
    """A row per picture, read through the autoencoder and then through the vision encoder."""
    seen = [vit(Image.fromarray(picture.numpy())) for picture in pictures]
    room = max(model.picture_room(*pixels.shape[-2:]) for pixels in seen)
    rows = torch.zeros(len(pictures), dtype=torch.long, device=model.device)
    if not latents:
        return model.append_picture(context.select(rows, room=room), seen)
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError(f"pictures of sizes {sorted({tuple(p.shape[:2]) for p in pictures})} cannot be read together")
    grid = model.latent_grid(*pictures[0].shape[:2])
    with torch.no_grad():
        clean = model.encode_image(normalise(torch.stack(list(pictures))).to(model.device))
    context = context.select(rows, room=room + model.latent_room(grid))
    return model.append_picture(model.append_latents(context, clean, grid), seen)
