"""A model of the embedded world that gets new eyes."""

from __future__ import annotations

from project.models.bagel import Bagel
from project.models.bagel.source import BagelCheckpoint
from project.models.base import ModelSource
from project.shapes.umm import NewEmbeddedModel


class NewVision(ModelSource):
    """A checkpoint of the embedded world with a vision tower of another size, whose weights are new.

    Args:
        directory: of the checkpoint; all but its vision tower, and what joins that to the language model, is kept.
        vision_hidden_size, vision_layers, vision_patch_size: of the vision tower.
        seed: of its weights.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
    """

    def __init__(
        self,
        directory: str,
        vision_hidden_size: int = 128,
        vision_layers: int = 3,
        vision_patch_size: int = 32,
        seed: int = 0,
    ) -> None:
        self.directory = directory
        self.vision_hidden_size = vision_hidden_size
        self.vision_layers = vision_layers
        self.vision_patch_size = vision_patch_size
        self.seed = seed

    def load(self) -> Bagel:
        known = BagelCheckpoint(directory=self.directory).load()
        config = known.config
        new = NewEmbeddedModel(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            vision_hidden_size=self.vision_hidden_size,
            vision_layers=self.vision_layers,
            vision_patch_size=self.vision_patch_size,
            position_scale=config.position_scale,
            vision_position_std=1.0,
            autoencoder=self.directory,
            seed=self.seed,
        ).load()
        kept = {
            name: weight
            for name, weight in known.state_dict().items()
            if not name.startswith(("vit_model.", "connector."))
        }
        new.load_state_dict(kept, strict=False)
        return new
