"""PNG and JPEG pictures as arrays, recognised by their content. The only module that imports Pillow."""

from __future__ import annotations

import warnings
from typing import IO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hepfaas.errors import RequestError

FORMATS = ["PNG", "JPEG"]
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's mode by the number of channels."""


def pixels(data: IO[bytes], shape: tuple[int, ...], model: str) -> NDArray[np.float32]:
    """Return a picture as numbers from 0 to 255, in the model's shape (height, width, channels) or (height, width).

    It is neither scaled nor cropped. Its size is checked before it is decoded, so a small file cannot become a large
    picture. Raises: RequestError if it is not such a picture.
    """
    height, width, channels = (*shape, 1) if len(shape) == 2 else shape if len(shape) == 3 else (0, 0, 0)
    if channels not in MODES:
        raise RequestError(f"model '{model}' takes no pictures: its input has shape {['events', *shape]}")
    try:
        with warnings.catch_warnings(), Image.open(data, formats=FORMATS) as picture:
            warnings.simplefilter("ignore")  # the size is checked below, with a better message
            if picture.size != (width, height):
                raise RequestError(
                    f"the picture has {picture.width} × {picture.height} pixels; model '{model}' takes "
                    f"{width} × {height} (width × height)"
                )
            values = _values(picture, MODES[channels])
    except UnidentifiedImageError as error:
        raise RequestError(f"'image' is neither {' nor '.join(FORMATS)}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"'image' cannot be decoded: {str(error)[:200]}") from error
    return values.reshape(shape)


def _values(picture: Image.Image, mode: str) -> NDArray[np.float32]:
    if picture.mode.startswith("I;16") or picture.mode == "I":  # 16 bits: the upper 8, as TensorFlow does
        picture = Image.fromarray((np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8))
    return np.asarray(picture.convert(mode), dtype=np.float32)
