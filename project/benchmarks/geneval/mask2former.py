"""GenEval's detector with transformers: Mask2Former, without mmdet, torchvision or scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from project.benchmarks.geneval.detections import THRESHOLD, Detection
from project.benchmarks.geneval.detector import Detector, check_named, self_test
from project.benchmarks.geneval.instances import instances
from project.benchmarks.geneval.items import CLASSES
from project.judges.first_token import device_of
from project.models.hub import local_copy

FILES = ("*.json", "*.safetensors")
"""What is fetched of a model on the hub."""
ARCHITECTURE = "mask2former"
MULTIPLE = 32
"""The sides of the network's input are multiples of this [pixels]."""
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's pictures, red, green, blue, as shares of 255."""


class Mask2FormerDetector(Detector):
    """Instance segmentation by a Mask2Former checkpoint of transformers, with mmdet's post-processing.

    Pictures are prepared here, in a few lines of PIL and torch, since transformers' image processor wants torchvision.
    As in mmdet's test of this network, the shorter side becomes `short_side` pixels, or less where the longer one would
    pass `long_side`; the resize is bilinear (Pillow's); values are normalized; zeros fill up the right and the bottom
    to multiples of 32. How queries become detections: `instances.instances`.

    The weights are read when the detector is first needed (in `preflight`).

    Args:
        model: folder or hub id of a checkpoint of COCO's 80 classes for instance segmentation.
        device: e.g. cuda:1; the accelerator if there is one, else the CPU, if None.
        short_side: of the network's input [pixels].
        long_side: most of the network's input [pixels].
        max_per_image: most detections of a picture.
        minimum_score: detections whose confidence is not above this are left out. No rule of GenEval looks at them.
        batch_size: pictures per forward; only those of one size go together.

    Raises:
        ValueError: for a number below 1, a long side below the short one, or a minimum score outside [0, 1].
    """

    def __init__(
        self,
        model: str = "facebook/mask2former-swin-small-coco-instance",
        device: str | None = None,
        short_side: int = 800,
        long_side: int = 1333,
        max_per_image: int = 100,
        minimum_score: float = THRESHOLD,
        batch_size: int = 1,
    ) -> None:
        if not 1 <= short_side <= long_side or max_per_image < 1 or batch_size < 1:
            raise ValueError(
                f"{short_side=}, {long_side=}, {max_per_image=}, {batch_size=}: give at least 1, and no short side "
                "above the long one"
            )
        if not 0 <= minimum_score <= 1:
            raise ValueError(f"{minimum_score=}: give a number from 0 to 1")
        self.model = model
        self.device = device
        self.short_side = short_side
        self.long_side = long_side
        self.max_per_image = max_per_image
        self.minimum_score = minimum_score
        self.batch_size = batch_size
        self._network: Any = None

    @property
    def label(self) -> str:
        return "geneval-hf"

    def preflight(self) -> None:
        """Loads the checkpoint and shows it a known photograph.

        Raises:
            FileNotFoundError: if there is no such checkpoint.
            ValueError: if it is of another architecture or of other classes, or fails the self-test.
        """
        self_test(self)

    def detect(self, images: Sequence[np.ndarray], names: Sequence[str]) -> list[tuple[Detection, ...]]:
        check_named(images, names)
        found: list[tuple[Detection, ...]] = []
        for size, group in groupby(images, key=lambda image: image.shape[:2]):
            same = list(group)
            for start in range(0, len(same), self.batch_size):
                found += self._detect(same[start : start + self.batch_size], size)
        return found

    @torch.inference_mode()
    def _detect(self, images: Sequence[np.ndarray], size: tuple[int, int]) -> list[tuple[Detection, ...]]:
        network = self._ready()
        prepared = [prepare(image, self.short_side, self.long_side) for image in images]
        pixels_N3HW = torch.stack([one.pixels_3HW for one in prepared]).to(network.device)
        output = network(pixel_values=pixels_N3HW)
        return [
            _detections(
                *(logits[n] for logits in (output.class_queries_logits, output.masks_queries_logits)),
                padded=(pixels_N3HW.shape[2], pixels_N3HW.shape[3]),
                resized=prepared[n].resized,
                size=size,
                most=self.max_per_image,
                minimum_score=self.minimum_score,
            )
            for n in range(len(images))
        ]

    def _ready(self) -> Any:
        if self._network is None:
            self._network = load_detector(self.model, device_of(self.device))
        return self._network


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A picture as the network takes it."""

    pixels_3HW: Tensor
    """Normalized, filled up with zeros at the right and the bottom."""
    resized: tuple[int, int]
    """Height and width of the picture in it."""


def prepare(image: np.ndarray, short_side: int, long_side: int) -> Prepared:
    """A picture, uint8 [height, width, 3], as the network takes it; see `Mask2FormerDetector`."""
    height, width = image.shape[:2]
    scale = min(short_side / min(height, width), long_side / max(height, width))
    resized = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    scaled = Image.fromarray(image).resize((resized[1], resized[0]), Image.Resampling.BILINEAR)
    pixels_HW3 = (torch.from_numpy(np.array(scaled)).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    below, right = (-side % MULTIPLE for side in resized)
    return Prepared(
        pixels_3HW=torch.nn.functional.pad(pixels_HW3.permute(2, 0, 1), (0, right, 0, below)), resized=resized
    )


def load_detector(model: str, device: torch.device) -> Any:
    """The network, frozen, in fp32. Raises as `Mask2FormerDetector.preflight`."""
    from transformers import AutoConfig

    folder = local_copy(model, FILES, "detector")
    remedy = "take facebook/mask2former-swin-small-coco-instance"
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"detector {model}: no model that transformers knows ({error}): {remedy}") from None
    if config.model_type != ARCHITECTURE:
        raise ValueError(f"detector {model}: is a {config.model_type} model, not {ARCHITECTURE}: {remedy}")
    if config.num_labels != len(CLASSES):
        raise ValueError(
            f"detector {model}: has {config.num_labels} classes, not COCO's {len(CLASSES)} of instance segmentation: "
            f"{remedy}"
        )
    # Loading must not move the run's randomness.
    with torch.random.fork_rng():
        network, told = network_class().from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if told["missing_keys"]:
        raise ValueError(f"detector {model}: lacks the weights {', '.join(sorted(told['missing_keys'])[:3])}: {remedy}")
    return network.to(device).eval().requires_grad_(False)


def network_class() -> Any:
    """transformers' Mask2Former for segmentation without its loss, which would need scipy."""
    from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerModel, Mask2FormerPreTrainedModel

    class WithoutLoss(Mask2FormerForUniversalSegmentation):
        _keys_to_ignore_on_load_unexpected = [r"^criterion\."]  # noqa: RUF012 (transformers' own type)

        def __init__(self, config: Any) -> None:
            Mask2FormerPreTrainedModel.__init__(self, config)
            self.model = Mask2FormerModel(config)
            self.class_predictor = torch.nn.Linear(config.hidden_dim, config.num_labels + 1)
            self.post_init()

    return WithoutLoss


def _detections(class_logits_QC: Tensor, mask_logits_QHW: Tensor, **how: Any) -> tuple[Detection, ...]:
    found = instances(class_logits_QC, mask_logits_QHW, **how)
    scores, labels, boxes = found.score_N.tolist(), found.label_N.tolist(), found.box_N4.double().tolist()
    masks_NHW = found.mask_NHW.cpu().numpy()
    return tuple(
        Detection(class_name=CLASSES[label], box=(x0, y0, x1, y1), score=score, mask_HW=mask)
        for score, label, (x0, y0, x1, y1), mask in zip(scores, labels, boxes, masks_NHW, strict=True)
    )
