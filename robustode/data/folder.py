"""`folder:PATH`: one subfolder of images per class, read with Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from robustode.data.source import Source
from robustode.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

PREFIX = "folder:"
_CLUTTER = {"thumbs.db", "desktop.ini"}


def folder_source(name: str) -> Source:
    """Return the images below `folder:PATH`, (channels, height, width) in [0, 1], classes in the order of the names.

    Grey images stay grey; palette, CMYK and opaque RGBA images become RGB. All must have one size and one mode.

    Raises:
        DataError: no folder, no class folders, an empty class, a file that is no image (named), transparency, more than
            8 bits a channel, several frames, or a size or mode other than the first image's.
    """
    root = Path(name.removeprefix(PREFIX)).expanduser()
    what = f"image folder '{root}'"
    if not root.is_dir():
        raise DataError(what, expected="a folder with one subfolder of images per class", got="no such folder")
    classes = [entry for entry in _entries(root) if entry.is_dir()]
    if len(classes) < 2:
        raise DataError(
            what,
            expected="at least two subfolders, one per class",
            got=", ".join(entry.name for entry in classes) or "none",
        )
    files: list[Path] = []
    targets: list[int] = []
    for label, folder in enumerate(classes):
        images = _entries(folder)
        if not images:
            raise DataError(f"class folder '{folder}'", expected="at least one image", got="an empty folder")
        files += images
        targets += [label] * len(images)
    return Source(
        name=name,
        title=name,
        y=torch.tensor(targets),
        read=lambda positions: _read_all(files if positions is None else [files[i] for i in positions.tolist()]),
        noun="images",
        bounds=(0.0, 1.0),
        classes=len(classes),
    )


def _entries(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _CLUTTER]


def _read_all(files: list[Path]) -> Tensor:
    out: Tensor | None = None
    for i, file in enumerate(files):
        pixels = _read_image(file)
        image = torch.from_numpy(pixels.astype(np.float32)).div_(255).movedim(-1, 0)
        if out is None:
            out = torch.empty(len(files), *image.shape)
        elif image.shape != out.shape[1:]:
            raise DataError(
                f"image '{file}'",
                expected=f"{_say(out.shape[1:])}, as '{files[0]}'",
                got=_say(image.shape),
                fix="Bring all images to one size and mode.",
            )
        out[i] = image
    if out is None:
        raise DataError("image folder", expected="at least one image", got="none")
    return out


def _read_image(file: Path) -> np.ndarray:
    """Return (height, width, channels) uint8 with 1 or 3 channels."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if getattr(image, "n_frames", 1) != 1:
                raise DataError(f"image '{file}'", expected="one frame", got=f"{getattr(image, 'n_frames', 1)} frames")
            plain = _plain(image, file)
            pixels = np.asarray(plain)
    except UnidentifiedImageError:
        raise DataError(f"file '{file}'", expected="an image", got="something else", fix="Move it away.") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as reason:
        raise DataError(f"image '{file}'", expected="a readable image", got=str(reason)) from reason
    return pixels.reshape(*pixels.shape[:2], -1)


def _plain(image: Image.Image, file: Path) -> Image.Image:
    """Return the image in mode L or RGB, or refuse what would lose information."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            raise DataError(f"image '{file}'", expected="an opaque image", got="transparency", fix="Flatten it.")
        return rgba.convert("L" if image.mode == "LA" else "RGB")
    if image.mode in ("P", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"):
        return image.convert("RGB")
    raise DataError(f"image '{file}'", expected="8 bits a channel", got=f"mode {image.mode}", fix="Save it as 8-bit.")


def _say(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} {'L' if channels == 1 else 'RGB'}"
