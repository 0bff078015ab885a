"""TFDS sets: reading them without TensorFlow, and preparing them from original files."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from experiments import prepare as command
from genjax.data import cifar10, originals, preparing, records, sources
from genjax.types import ImageSpec, UserError

ROOT = pathlib.Path(__file__).parents[1]
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
needs_tensorflow = pytest.mark.skipif(not HAS_TENSORFLOW, reason="preparing needs TensorFlow, which is not installed")
# TFDS and what it imports warn of their own deprecations.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

tfds = pytest.importorskip("tensorflow_datasets")


def message(function, *args, **kwargs) -> str:
    """The message of the UserError that the call raises, after checking that it is one line."""
    with pytest.raises(UserError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def pixels(index: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, shape, np.uint8)


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array.squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


class GenjaxTiny(tfds.core.GeneratorBasedBuilder):
    """A set of each kind: grey with labels, RGB without, sizes that vary, no images, labels kept hidden."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, version="1.2.0", description=name)
        for name in ("labelled", "bare", "varying", "text", "hidden", "bits")
    ]
    COUNTS: ClassVar = {"train": 20, "test": 5}

    def _info(self):
        image = {
            "bare": tfds.features.Image(shape=(6, 4, 3)),
            "varying": tfds.features.Image(shape=(None, None, 3)),
            "text": tfds.features.Text(),
        }.get(self.builder_config.name, tfds.features.Image(shape=(4, 4, 1)))
        features = {"text" if self.builder_config.name == "text" else "image": image}
        if self.builder_config.name in ("labelled", "hidden"):
            features["label"] = tfds.features.ClassLabel(names=["zero", "one", "two"])
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        del dl_manager
        return {name: self._generate_examples(name, count) for name, count in self.COUNTS.items()}

    def _generate_examples(self, split, count):
        config = self.builder_config.name
        for index in range(count):
            if config == "text":
                yield index, {"text": "hello"}
                continue
            shape = {"bare": (6, 4, 3), "varying": (8 + index % 3, 9, 3)}.get(config, (4, 4, 1))
            image = pixels(index, *shape) if config != "bits" else pixels(index, *shape) % 2
            example = {"image": png(image)}
            if config == "labelled":
                example["label"] = index % 3
            if config == "hidden":
                example["label"] = index % 3 if split == "train" else -1
            yield index, example


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> str:
    root = str(tmp_path_factory.mktemp("tfds"))
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    for name in GenjaxTiny.builder_configs:
        builder = GenjaxTiny(config=name, data_dir=root, file_format="array_record")
        builder.download_and_prepare(download_config=config)
    return root


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


# Reading


def test_labelled_set(data_dir):
    source = sources.tfds("genjax_tiny/labelled", "train", data_dir)
    assert source.spec == ImageSpec(4, 4, 1, 3, ("zero", "one", "two")) and len(source) == 20
    assert source.provenance["version"] == "1.2.0" and source.provenance["count"] == 20
    json.dumps(source.provenance)
    loaded = sources.in_memory(source, 10**6)
    expected = {pixels(index, 4, 4, 1).tobytes(): index % 3 for index in range(20)}
    assert {image.tobytes(): int(label) for image, label in zip(loaded.images, loaded.labels, strict=True)} == expected
    batch = source.gather(np.array([3, 0, 3]))
    np.testing.assert_array_equal(batch["image"], loaded.images[[3, 0, 3]])
    assert batch["label"].dtype == np.int32


def test_unlabelled_set_and_parts_of_splits(data_dir):
    source = sources.tfds("genjax_tiny/bare", "test", data_dir)
    assert source.spec == ImageSpec(6, 4, 3) and set(source.gather(np.arange(2))) == {"image"}
    whole = as_set(sources.in_memory(sources.tfds("genjax_tiny/bare", "train", data_dir), 10**6).images)
    parts = [sources.tfds("genjax_tiny/bare", split, data_dir) for split in ("train[:90%]", "train[90%:]")]
    assert [len(part) for part in parts] == [18, 2]
    assert set.union(*(as_set(sources.in_memory(part, 10**6).images) for part in parts)) == whole


def test_images_of_varying_size(data_dir):
    text = message(sources.tfds, "genjax_tiny/varying", "train", data_dir)
    assert "genjax_tiny/varying" in text and "folder" in text and "size=" in text
    source = sources.tfds("genjax_tiny/varying", "train", data_dir, size=5)
    assert source.spec == ImageSpec(5, 5, 3)
    crops = set()
    for index in range(20):
        side = 8 + index % 3
        image = Image.fromarray(pixels(index, side, 9, 3))
        side = min(side, 9)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        crops.add(np.asarray(square.resize((5, 5), Image.Resampling.LANCZOS)).tobytes())
    assert as_set(sources.in_memory(source, 10**6).images) == crops
    grey = sources.tfds("genjax_tiny/labelled", "train", data_dir, size=2)
    assert grey.gather(np.arange(3))["image"].shape == (3, 2, 2, 1)
    assert "'big'" in message(sources.tfds, "genjax_tiny/labelled", "train", data_dir, size="big")


def test_a_set_of_bits_has_white_at_255(data_dir, monkeypatch):
    monkeypatch.setitem(records._WHITE, "genjax_tiny", 1)
    images = sources.in_memory(sources.tfds("genjax_tiny/bits", "train", data_dir), 10**6).images
    assert as_set(images) == as_set([pixels(index, 4, 4, 1) % 2 * 255 for index in range(20)])


def test_reading_errors_name_the_culprit(data_dir):
    for split in ("validation", "train[:x]", "", "train[:0]"):
        text = message(sources.tfds, "genjax_tiny/bare", split, data_dir)
        assert repr(split) in text and "test, train" in text
    assert "text" in message(sources.tfds, "genjax_tiny/text", "train", data_dir)
    assert "'test'" in message(sources.in_memory, sources.tfds("genjax_tiny/hidden", "test", data_dir), 10**6)
    assert "labelled, bare" in message(sources.tfds, "genjax_tiny/bear", "train", data_dir)
    text = message(sources.tfds, "fashion_mnits", "train", data_dir)
    assert "'fashion_mnits'" in text and "did you mean fashion_mnist" in text
    for name in ("huggingface:mnist", "kaggle:mnist", "", None, "mnist:9.9.9"):
        assert repr(name) in message(sources.tfds, name, "train", data_dir)


def test_reading_imports_no_tensorflow(data_dir):
    """In a fresh process, which also has no code for this set: its files are enough."""
    code = (
        "import sys; from genjax.data import sources\n"
        "source = sources.in_memory(sources.load('tfds', split='train', name='genjax_tiny/labelled'), 10**6)\n"
        "print(len(source), source.spec.classes, 'tensorflow' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TFDS_DATA_DIR": data_dir}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.stdout.strip() == "20 3 False", result.stderr


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    assert preparing.data_root() == tmp_path / "tensorflow_datasets"
    monkeypatch.setenv("TFDS_DATA_DIR", "~/sets")
    assert preparing.data_root() == tmp_path / "sets"
    assert preparing.data_root("~/mine") == tmp_path / "mine"


# Sets that are not prepared

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def without_tensorflow(monkeypatch):
    find_spec = importlib.util.find_spec
    hide = lambda name, *rest: None if name == "tensorflow" else find_spec(name, *rest)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", hide)


def with_tensorflow(monkeypatch):
    """Pretends that it is there, for what happens before it is needed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())


def test_unprepared_set_says_what_to_run(tmp_path, monkeypatch):
    without_tensorflow(monkeypatch)
    text = message(sources.tfds, "mnist", "train", str(tmp_path))
    assert "python -m experiments.prepare mnist --from=DIR" in text and str(tmp_path) in text
    assert "genjax[prepare]" in text
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    for name in NAMES:
        (manual / f"{name}.gz").write_bytes(b"")
    text = message(sources.tfds, "mnist", "train", str(tmp_path))
    assert "genjax[prepare]" in text and "--from" not in text
    with_tensorflow(monkeypatch)
    (manual / f"{NAMES[0]}.gz").unlink()
    text = message(sources.tfds, "mnist", "train", str(tmp_path))
    assert "--from=DIR" in text and "genjax[prepare]" not in text


def test_a_failed_preparation_is_one_line(tmp_path, monkeypatch):
    with_tensorflow(monkeypatch)
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    for name in NAMES:
        (manual / f"{name}.gz").write_bytes(b"not the original")
    # Size and sha256 are checked before TensorFlow is imported, except that the other process looks for it first.
    text = message(sources.tfds, "mnist", "train", str(tmp_path))
    assert "mnist" in text and ("genjax[prepare]" in text or "t10k-images" in text)


class FakeBuilder:
    """What ``originals`` uses of a builder."""

    name = "fake"
    builder_configs: ClassVar = {}
    MANUAL_DOWNLOAD_INSTRUCTIONS = None

    def __init__(self, content: dict[str, bytes]):
        info = tfds.core.download.checksums.UrlInfo
        self.url_infos = {
            f"https://example.org/sets/{name}": info(len(data), hashlib.sha256(data).hexdigest(), name)
            for name, data in content.items()
        }


CONTENT = {"a.txt": b"first file", "b.gz": gzip.compress(b"second file")}


def cached(downloads: pathlib.Path) -> list[str]:
    return sorted(path.name for path in downloads.rglob("*") if path.is_file())


def test_placing_originals(tmp_path):
    builder, given, downloads = FakeBuilder(CONTENT), tmp_path / "given", tmp_path / "downloads"
    given.mkdir()
    (given / "a.txt.gz").write_bytes(gzip.compress(CONTENT["a.txt"]))
    (given / "b.gz").write_bytes(CONTENT["b.gz"])
    with originals.placed(builder, downloads, [given]) as lines:
        assert "unpacked" in lines[0] and "copied" in lines[1]
    assert len(cached(downloads)) == 4
    assert originals.missing(builder, downloads, []) == []
    for (url, info), data in zip(builder.url_infos.items(), CONTENT.values(), strict=True):
        path = downloads / tfds.core.download.resource.get_dl_fname(url, info.checksum)
        assert path.read_bytes() == data
        assert json.loads(path.with_name(path.name + ".INFO").read_text())["urls"] == [url]
    with originals.placed(builder, downloads, [given]) as lines:
        assert lines == []


@pytest.mark.parametrize(
    ("name", "data", "culprit"),
    [
        ("b.gz", b"too short", "bytes"),
        ("b.gz", CONTENT["b.gz"][:-1] + b"x", "sha256"),
        ("a.txt.gz", gzip.compress(CONTENT["a.txt"])[:-6], "can't read"),
        ("a.txt.gz", b"not gzip", "can't read"),
    ],
)
def test_wrong_originals_leave_nothing(tmp_path, name, data, culprit):
    builder, given, downloads = FakeBuilder(CONTENT), tmp_path / "given", tmp_path / "downloads"
    given.mkdir()
    for original, content in CONTENT.items():
        (given / original).write_bytes(content)
    (given / "a.txt").unlink()
    (given / "a.txt.gz").write_bytes(gzip.compress(CONTENT["a.txt"]))
    (given / name).write_bytes(data)

    def place():
        with originals.placed(builder, downloads, [given]):
            pytest.fail("placed a wrong file")

    text = message(place)
    assert str(given / name) in text and culprit in text
    assert cached(downloads) == []


def test_missing_originals_are_listed_and_a_failing_builder_leaves_nothing(tmp_path):
    builder, given, downloads = FakeBuilder(CONTENT), tmp_path / "given", tmp_path / "downloads"
    given.mkdir()
    (given / "a.txt").write_bytes(CONTENT["a.txt"])

    def place():
        with originals.placed(builder, downloads, [given]):
            raise UserError("the builder failed")

    text = message(place)
    assert "b.gz" in text and "a.txt" not in text and str(given) in text
    (given / "b.gz").write_bytes(CONTENT["b.gz"])
    assert message(place) == "the builder failed"
    assert cached(downloads) == []


def test_cifar10_archive_from_tiles(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    grid = np.zeros((3200, 3200, 3), np.uint8)
    grid[32:64, 32:64] = rng.integers(0, 256, (32, 32, 3))
    labels = rng.integers(0, 10, 10000).astype(np.uint8)
    images = grid.reshape(100, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(-1, 32, 32, 3)
    first = bytes([labels[101]]) + images[101].transpose(2, 0, 1).tobytes()
    monkeypatch.setattr(cifar10, "_SHA256", {"data_batch_1": "0" * 64})
    assert not cifar10.is_tiled(tmp_path)
    Image.fromarray(grid).save(tmp_path / "data_batch_1.webp", lossless=True, method=0, quality=0)
    np.savez(tmp_path / "labels.npz", data_batch_1_labels=labels)
    assert cifar10.is_tiled(tmp_path)
    assert "data_batch_1" in message(cifar10.build_archive, tmp_path, tmp_path / "x.tar.gz")
    content = cifar10._read_batch(tmp_path, "data_batch_1")
    monkeypatch.setattr(cifar10, "_SHA256", {"data_batch_1": hashlib.sha256(content).hexdigest()})
    cifar10.build_archive(tmp_path, tmp_path / "x.tar.gz")
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        names = [member.name.split("/") for member in archive]
        assert names == [["cifar-10-batches-bin", name] for name in ("data_batch_1.bin", "batches.meta.txt")]
        found = archive.extractfile("cifar-10-batches-bin/data_batch_1.bin").read()
    assert found[101 * 3073 : 102 * 3073] == first and len(found) == 30_730_000
    (tmp_path / "data_batch_1.webp").write_bytes(b"damaged")
    assert "data_batch_1.webp" in message(cifar10.build_archive, tmp_path, tmp_path / "y.tar.gz")


# The command


def test_command_line_errors(tmp_path, monkeypatch, capsys):
    root = tmp_path / "sets"
    with pytest.raises(SystemExit) as help_exit:
        command.main(["--help"])
    assert help_exit.value.code == 0 and "train-images-idx3-ubyte.gz" in capsys.readouterr().out

    def fails(*arguments: str) -> str:
        assert command.main([*arguments, f"--data_dir={root}"]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert not root.exists()
        return captured.err

    without_tensorflow(monkeypatch)
    assert "pip install 'genjax[prepare]'" in fails("mnist", f"--from={tmp_path}")
    with_tensorflow(monkeypatch)
    assert "did you mean" in fails("fashion_mnits", f"--from={tmp_path}")
    assert str(tmp_path / "nowhere") in fails("mnist", f"--from={tmp_path / 'nowhere'}")
    text = fails("mnist", f"--from={tmp_path}")
    assert all(name in text for name in NAMES)
    (tmp_path / "mnist").mkdir()
    for name in NAMES:
        (tmp_path / "mnist" / f"{name}.gz").write_bytes(b"wrong")
    assert str(tmp_path / "mnist") in fails("mnist", f"--from={tmp_path}")


def test_command_says_when_there_is_nothing_to_do(data_dir, capsys):
    assert command.main(["genjax_tiny/bare", f"--data_dir={data_dir}"]) == 0
    text = capsys.readouterr().out
    assert "already prepared" in text and data_dir in text and "train 20" in text and "test 5" in text


@needs_tensorflow
def test_preparing_for_real_refuses_the_network(tmp_path):
    """A set with configs whose files are only partly there: the builder asks for one more, and is refused."""
    builder = preparing.open_builder("mnist", tmp_path, file_format="array_record")
    (tmp_path / "downloads").mkdir()
    text = message(preparing._run_builder, builder, tmp_path / "downloads", tmp_path)
    assert "train-images" in text or "t10k" in text or "train-labels" in text
    assert not preparing.is_prepared(preparing.open_builder("mnist", tmp_path))
