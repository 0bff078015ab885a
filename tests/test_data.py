"""Data sources: splits, digits, arrays and folders (TFDS sets: test_prepare.py)."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from genjax.data import embedded, sources
from genjax.data.base import held_out, split_slice
from genjax.types import ImageSpec, UserError

ROOT = pathlib.Path(__file__).parents[1]


def message(function, *args, **kwargs) -> str:
    """The message of the UserError that the call raises, after checking that it is one line."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def image_array(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


# Splits, sources in memory, digits


def test_split_slices_match_python_slicing():
    items = list(range(50))
    cases = {"train": items, "test[:10%]": items[:5], "train[90%:]": items[45:], "train[7:-3]": items[7:-3]}
    for split, expected in {**cases, "train[-10%:]": items[-5:], "train[:1000]": items}.items():
        assert items[split_slice(split, 50)] == expected


@pytest.mark.parametrize("split", ["validation", "train[10]", "train[:5", "", None, "train[a:b]"])
def test_unknown_split_is_named(split):
    text = message(sources.digits, split)
    assert repr(split) in text and "train or test" in text


@pytest.mark.parametrize(("count", "fraction"), [(100, 0.1), (1000, 0.1), (99, 0.25), (7, 0.5), (10, 0.0), (30, 1 / 3)])
def test_held_out_share_is_exact(count, fraction):
    assert held_out(count, fraction).sum() == int(count * fraction + 1e-9)


def test_held_out_examples_stay_when_more_come():
    np.testing.assert_array_equal(held_out(200, 0.1)[:150], held_out(150, 0.1))


def test_array_source_rejects_contradictions():
    spec = ImageSpec(4, 4, 1, classes=2)
    images, labels = image_array(3, 4, 4, 1), np.array([0, 1, 0], np.int32)
    source = sources.ArraySource(spec, "x", {}, images, labels)
    assert len(source) == 3 and source.nbytes == 48
    for wrong in (
        {"images": images.astype(np.float32)},
        {"images": images[:, :3]},
        {"labels": None},
        {"labels": labels[:2]},
        {"labels": labels + 1},
        {"labels": labels.astype(np.int64)},
    ):
        with pytest.raises(ValueError):
            dataclasses.replace(source, **wrong)


def test_digits_splits():
    train, test = sources.digits("train"), sources.digits("test")
    assert (len(train), len(test)) == (1501, 296)
    assert train.spec == ImageSpec(8, 8, 1, 10, tuple("0123456789"))
    assert train.provenance["sha256"] == embedded.DIGITS_SHA256
    counts = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    assert counts.min() > 0.16 and counts.max() < 0.17
    batch = train.gather(np.array([5, 0, 5]))
    assert batch["image"].shape == (3, 8, 8, 1)
    assert batch["image"].dtype == np.uint8 and batch["label"].dtype == np.int32
    assert len(sources.digits("train[:10%]")) == 150
    assert "digits" in message(sources.digits, "test[:0]")


def test_digits_are_those_of_sklearn():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    original = load_digits()
    expected = np.round(original.images * 255 / 16).astype(np.uint8)
    ours = {part: sources.digits(part) for part in ("train", "test")}
    for label in range(10):
        mine = np.flatnonzero(original.target == label)
        is_test = np.arange(len(mine)) % 6 == 5
        for part, chosen in (("train", mine[~is_test]), ("test", mine[is_test])):
            found = ours[part].images[ours[part].labels == label]
            np.testing.assert_array_equal(found[..., 0], expected[chosen])
    assert np.array_equal(np.round(expected * (16 / 255)), original.images)


def test_table_names_what_is_valid():
    text = message(sources.load, "digit", split="train")
    assert "'digit'" in text and all(name in text for name in sources.SOURCES)
    text = message(sources.load, "folder", split="train", path="x", sise=3)
    assert "sise" in text and "test_fraction" in text
    assert len(sources.load("digits", split="test")) == 296


# Arrays


def save(path, **content) -> str:
    np.savez(path, **content)
    return str(path)


def test_arrays_whole_and_split_and_keras_keys(tmp_path):
    images, labels = image_array(20, 5, 4), np.arange(20) % 3
    whole = save(tmp_path / "whole.npz", images=images, labels=labels)
    train, test = (sources.arrays(whole, part, test_fraction=0.25) for part in ("train", "test"))
    assert (len(train), len(test), train.spec) == (15, 5, ImageSpec(5, 4, 1, 3))
    np.testing.assert_array_equal(test.images[..., 0], images[3::4])
    np.testing.assert_array_equal(test.labels, labels[3::4])
    keras = save(
        tmp_path / "keras.npz",
        x_train=image_array(6, 4, 4, 3),
        y_train=np.array([[0], [1], [0], [1], [0], [1]]),
        x_test=image_array(2, 4, 4, 3),
        y_test=np.array([[4], [0]], np.uint8),
    )
    # A class that only the test split has counts in both.
    assert sources.arrays(keras, "train").spec == sources.arrays(keras, "test").spec == ImageSpec(4, 4, 3, 5)
    assert sources.arrays(keras, "train[2:4]").labels.tolist() == [0, 1]
    bare = save(tmp_path / "bare.npz", train_images=image_array(6, 4, 4))
    source = sources.arrays(bare, "train")
    assert source.spec.classes == 0 and set(source.gather(np.arange(2))) == {"image"}
    assert "test_images" in message(sources.arrays, bare, "test")


@pytest.mark.parametrize(
    ("content", "culprit"),
    [
        ({"images": np.zeros((4, 2, 2), np.float32)}, "float32"),
        ({"images": np.zeros((4, 2), np.uint8)}, "[4, 2]"),
        ({"images": np.zeros((4, 3, 8, 8), np.uint8)}, "[4, 3, 8, 8]"),
        ({"images": np.zeros((4, 2, 2), np.uint8), "labels": np.zeros(3, int)}, "3 labels for 4 images"),
        ({"images": np.zeros((4, 2, 2), np.uint8), "labels": np.array([0, -1, 0, 1])}, "-1"),
        ({"images": np.zeros((4, 2, 2), np.uint8), "labels": np.zeros(4)}, "float64"),
        ({"pictures": np.zeros((4, 2, 2), np.uint8), "tags": np.zeros(4)}, "pictures, tags"),
        ({"images": np.array([{}, {}], object)}, "Python objects"),
        (
            {
                "train_images": np.zeros((4, 2, 2), np.uint8),
                "test_images": np.zeros((4, 2, 2), np.uint8),
                "test_labels": np.zeros(4, int),
            },
            "train_labels",
        ),
    ],
)
def test_arrays_errors_name_the_culprit(tmp_path, content, culprit):
    path = save(tmp_path / "bad.npz", **content)
    text = message(sources.arrays, path, "train")
    assert culprit in text and path in text


def test_arrays_that_are_no_npz(tmp_path):
    text, single = tmp_path / "a.npz", tmp_path / "b.npy"
    text.write_text("hello")
    np.save(single, np.zeros(3))
    cut = tmp_path / "cut.npz"
    save(cut, images=image_array(50, 8, 8))
    cut.write_bytes(cut.read_bytes()[:2000])
    for path in (text, single, cut, tmp_path / "missing.npz", tmp_path):
        assert str(path) in message(sources.arrays, str(path), "train")
    assert "1.5" in message(sources.arrays, str(text), "train", test_fraction=1.5)


# Folders


def write_images(folder: pathlib.Path, count: int, size=(6, 5), mode="RGB", suffix=".png") -> list[pathlib.Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        paths.append(folder / f"{number:03}{suffix}")
        Image.fromarray(pixels).convert(mode).save(paths[-1])
    return paths


def test_folder_of_classes(tmp_path):
    names = {"cat": 20, "ant": 10}
    files = {name: write_images(tmp_path / "pets" / name, count) for name, count in names.items()}
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / ".cache").mkdir()
    train, test = (sources.folder(str(tmp_path / "pets"), part) for part in ("train", "test"))
    assert train.spec == ImageSpec(5, 6, 3, 2, ("ant", "cat")) and train.name == "pets"
    assert (len(train), len(test)) == (27, 3)
    assert test.labels.tolist().count(1) == 2
    assert set(test.paths) == {files["cat"][9], files["cat"][19], files["ant"][9]}
    # Any stretch holds the classes in about their proportion.
    assert abs(train.labels[:9].mean() - 2 / 3) < 0.12
    loaded = sources.in_memory(train, 10**6)
    assert isinstance(loaded, sources.ArraySource) and loaded.spec == train.spec
    assert sources.in_memory(train, train.nbytes - 1) is train
    chosen = np.array([4, 0])
    for key, value in train.gather(chosen).items():
        np.testing.assert_array_equal(value, loaded.gather(chosen)[key])
    np.testing.assert_array_equal(loaded.images[3], np.asarray(Image.open(train.paths[3])))


def test_folder_without_classes_grey_and_resized(tmp_path):
    write_images(tmp_path / "a", 10, mode="L", suffix=".bmp")
    source = sources.folder(str(tmp_path / "a"), "train")
    assert source.spec == ImageSpec(5, 6, 1) and len(source) == 9
    assert set(source.gather(np.arange(2))) == {"image"}
    write_images(tmp_path / "a", 3, size=(40, 30), suffix=".jpeg")
    source = sources.folder(str(tmp_path / "a"), "train[:50%]", size=4)
    assert source.spec == ImageSpec(4, 4, 3)
    wide = Image.open(tmp_path / "a" / "000.jpeg").crop((5, 0, 35, 30)).resize((4, 4), Image.Resampling.LANCZOS)
    row = source.paths.index(tmp_path / "a" / "000.jpeg")
    np.testing.assert_array_equal(source.gather(np.array([row]))["image"][0], np.asarray(wide))


def test_folder_with_its_own_splits(tmp_path):
    for part, count in (("train", 4), ("test", 2)):
        for name in ("x", "y"):
            write_images(tmp_path / part / name, count)
    train, test = (sources.folder(str(tmp_path), part) for part in ("train", "test"))
    assert (len(train), len(test), train.spec.class_names) == (8, 4, ("x", "y"))
    write_images(tmp_path / "test" / "z", 1)
    assert "z" in message(sources.folder, str(tmp_path), "train")


def test_folder_transparency_orientation_and_palette(tmp_path):
    clear = Image.new("RGBA", (2, 4), (10, 20, 30, 0))
    clear.save(tmp_path / "a.png")
    Image.new("RGB", (2, 4), (9, 9, 9)).quantize(2).save(tmp_path / "b.png")
    turned = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "c.png", exif=exif)
    images = sources.in_memory(sources.folder(str(tmp_path), "train", test_fraction=0), 10**6).images
    assert images.shape == (3, 4, 2, 3)
    assert (images[0] == 255).all() and (images[1] == 9).all()
    np.testing.assert_array_equal(images[2], np.rot90(np.asarray(turned), -1))


def test_folder_errors_name_the_culprit(tmp_path):
    assert str(tmp_path / "none") in message(sources.folder, str(tmp_path / "none"), "train")
    empty = tmp_path / "empty"
    (empty / "class").mkdir(parents=True)
    assert str(empty) in message(sources.folder, str(empty), "train")
    mixed = tmp_path / "mixed"
    small = write_images(mixed, 2)
    large = write_images(mixed, 1, size=(7, 7), suffix=".webp")
    text = message(sources.folder, str(mixed), "train")
    assert str(small[0]) in text and str(large[0]) in text and "size=" in text
    write_images(mixed / "class", 1)
    assert "000.png" in message(sources.folder, str(mixed), "train")
    few = tmp_path / "few"
    write_images(few, 3)
    assert str(few) in message(sources.folder, str(few), "test")
    assert "-1" in message(sources.folder, str(few), "train", size=-1)
    deep = tmp_path / "deep"
    deep.mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(deep / "deep.png")
    assert "deep.png" in message(sources.folder, str(deep), "train")
    hollow = tmp_path / "hollow"
    write_images(hollow / "full", 2)
    (hollow / "nothing").mkdir()
    assert str(hollow / "nothing") in message(sources.folder, str(hollow), "train")


def test_folder_finds_damaged_files(tmp_path):
    paths = write_images(tmp_path, 12, size=(64, 64), suffix=".jpg")
    paths[4].write_bytes(paths[4].read_bytes()[:-500])
    # The header is whole, so the damage shows when the image is decoded.
    source = sources.folder(str(tmp_path), "train")
    assert str(paths[4]) in message(sources.in_memory, source, 10**9)
    paths[7].write_text("not an image")
    assert str(paths[7]) in message(sources.folder, str(tmp_path), "train")


def test_importing_the_package_loads_no_tfds():
    code = "import sys, genjax.data.sources; print({'tensorflow', 'tensorflow_datasets'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.strip() == "set()"
