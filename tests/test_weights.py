"""Weights of pretrained networks: where they are looked for, and what is said when they are wrong or not there."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys

import numpy as np
import pytest

from genjax.evaluators.weights import KNOWN, File, Known, weights
from genjax.types import UserError

PACKAGE = "a_package_of_weights"


def packed(value: float) -> bytes:
    out = io.BytesIO()
    np.savez(out, x=np.full(3, value, np.float32))
    return out.getvalue()


def known(*values: float) -> Known:
    """A network of one array; file ``i.npz`` holds ``values[i]``, the last one also in a package."""
    files = [
        File(f"{i}.npz", hashlib.sha256(packed(value)).hexdigest(), "NumPy", (PACKAGE, "inside"))
        for i, value in enumerate(values)
    ]
    return Known(tuple(files), lambda arrays, where: {"params": dict(arrays)}, "ask its author")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The user's folder, the cache folder, and that in a package which can't be imported."""
    own, cache, site = tmp_path / "own", tmp_path / "cache" / "genjax" / "weights", tmp_path / "site"
    inside = site / PACKAGE / "inside"
    for folder in (own, cache, inside):
        folder.mkdir(parents=True)
    (site / PACKAGE / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("GENJAX_WEIGHTS", str(own))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(KNOWN, "tiny", known(1.0, 2.0))
    return own, cache, inside


def value(name: str = "tiny") -> float:
    return float(weights(name).variables["params"]["x"][0])


def test_the_users_folder_comes_before_the_cache_and_that_before_packages(folders):
    own, cache, inside = folders
    (inside / "0.npz").write_bytes(packed(1.0))
    assert value() == 1.0
    (cache / "1.npz").write_bytes(packed(2.0))
    assert value() == 2.0
    (own / "0.npz").write_bytes(packed(1.0))
    found = weights("tiny")
    assert value() == 1.0 and weights("tiny") is found  # read once
    assert found.facts == {"name": "tiny", "sha256": KNOWN["tiny"].files[0].sha256, "format": "NumPy"}


def test_another_file_under_the_name_is_refused_until_it_is_put_right(folders):
    own = folders[0]
    (own / "0.npz").write_bytes(packed(3.0))
    with pytest.raises(
        UserError, match=r"0\.npz has SHA-256 .*, not .*: another file, or one that is not whole"
    ) as caught:
        weights("tiny")
    assert "\n" not in str(caught.value)
    (own / "0.npz").write_bytes(packed(1.0))
    assert value() == 1.0


def test_without_a_file_one_line_says_what_was_looked_for_where_and_how_to_get_it(folders, monkeypatch):
    own, cache, _ = folders
    with pytest.raises(UserError) as caught:
        weights("tiny")
    message = str(caught.value)
    assert "\n" not in message
    for part in ("tiny", "0.npz or 1.npz", str(own), str(cache), "GENJAX_WEIGHTS", "ask its author"):
        assert part in message, part
    monkeypatch.delenv("GENJAX_WEIGHTS")
    with pytest.raises(UserError) as caught:
        weights("tiny")
    assert str(own) not in str(caught.value) and str(cache) in str(caught.value)
    with pytest.raises(UserError, match="weights='vgg' is unknown; accepted: efficientnet_lite0, inception_v3, tiny"):
        weights("vgg")


def test_known_files_have_the_hash_that_their_name_begins():
    for name in ("efficientnet_lite0", "inception_v3"):
        for file in KNOWN[name].files:
            assert len(file.sha256) == 64 and set(file.sha256) <= set("0123456789abcdef")
            digits = file.name.removesuffix(".pth").rpartition("-")[2]
            assert not file.name.endswith(".pth") or file.sha256.startswith(digits)


def test_pretrained_efficientnet_is_found_by_its_name():
    folder = os.environ.get("GENJAX_WEIGHTS", "weights")
    if not any(os.path.isfile(os.path.join(folder, file.name)) for file in KNOWN["efficientnet_lite0"].files):
        pytest.skip("no weights of EfficientNet-Lite0; name their folder in GENJAX_WEIGHTS")
    found = weights("efficientnet_lite0")
    assert found.variables["params"]["fc"]["kernel"].shape == (1280, 1000)
    assert found.facts["sha256"] in {file.sha256 for file in KNOWN["efficientnet_lite0"].files}


def test_finding_weights_imports_no_pytorch():
    code = (
        "import sys; from genjax.evaluators.weights import weights\n"
        "try: weights('inception_v3')\nexcept Exception: pass\n"
        "assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
