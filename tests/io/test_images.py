"""Image files."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from genjax.io.images import save_npz, save_png
from genjax.types import UserError


def random_images(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def test_png_round_trip(tmp_path):
    for name, image in (("rgb", random_images(1, 5, 7, 3)[0]), ("grey", random_images(1, 5, 7, 1)[0])):
        save_png(tmp_path / "new" / f"{name}.png", image)
        read = np.asarray(Image.open(tmp_path / "new" / f"{name}.png"))
        assert np.array_equal(read, image.squeeze())
    save_png(tmp_path / "flat.png", image[..., 0])
    assert (tmp_path / "flat.png").read_bytes() == (tmp_path / "new" / "grey.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["flat.png", "new"]
    with pytest.raises(UserError, match="picture for"):
        save_png(tmp_path / "bad.png", image / 255)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_what_is_no_image_is_refused_and_nothing_is_written(image, tmp_path):
    with pytest.raises(UserError, match="is no image"):
        save_png(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


def test_npz_round_trip(tmp_path):
    images = random_images(3, 2, 2, 1)
    save_npz(tmp_path / "new" / "a.npz", {"images": images})
    with np.load(tmp_path / "new" / "a.npz", allow_pickle=False) as file:
        assert np.array_equal(file["images"], images)
