"""Pictures by the hundred."""

from __future__ import annotations

import io
import random
from pathlib import Path

STAMPS = Path("/usr/share/tuxpaint/stamps")
"""Where Debian's `tuxpaint-stamps-default` puts some 800 pictures, in a tree of kinds."""
NO_STAMPS = "Debian's tuxpaint-stamps-default is not installed"


def stamps() -> list[Path]:
    """The pictures of Debian's `tuxpaint-stamps-default`, by name; none where it is absent."""
    return sorted(STAMPS.rglob("*.png"))


def on_white(path: Path) -> bytes:
    """A picture as a JPEG, on a white ground where it is transparent."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    return _jpeg(Image.alpha_composite(ground, picture).convert("RGB"))


def write_tiles(
    photos: list[Path], folder: Path, count: int, *, sides: tuple[float, float] = (0.25, 0.5)
) -> Path:
    """Write `count` JPEGs to `folder`: parts of the photos, each of another place and size.

    `sides`: the smallest and the largest part of a photo's shorter side.
    """
    from PIL import Image

    chance = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [Image.open(path).convert("RGB") for path in photos]
    for number in range(count):
        picture = pictures[number % len(pictures)]
        side = round(min(picture.size) * chance.uniform(*sides))
        left = round(chance.random() * (picture.width - side))
        top = round(chance.random() * (picture.height - side))
        part = picture.crop((left, top, left + side, top + side))
        (folder / f"{number:04}.jpg").write_bytes(_jpeg(part))
    return folder


def _jpeg(picture: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)  # type: ignore[attr-defined]
    return file.getvalue()
