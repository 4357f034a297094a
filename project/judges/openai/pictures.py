"""Pictures in the form that OpenAI-compatible servers take."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from project.judges.base import check_image


def data_uri(image: np.ndarray) -> str:
    """PNG of a uint8 [height, width, 3] picture, for an image_url. Raises ValueError for anything else."""
    check_image(image)
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
