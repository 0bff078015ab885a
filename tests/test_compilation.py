"""The cache of compiled programs, and what a program is said to cost."""

from __future__ import annotations

import os
import re
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.train import compilation, cost
from genjax.train.compilation import Compilation, prune, use_cache
from genjax.train.cost import Cost, peak_bytes
from genjax.train.sharding import select_platform
from genjax.types import UserError
from tests.cli.commands import VAE, environment, start, train_arguments


def write(path, size, age):
    path.write_bytes(b"x" * size)
    os.utime(path, (time.time() - age,) * 2)


def test_the_oldest_programs_go_first(tmp_path):
    for name, size, age in (("old", 40, 300), ("middle", 40, 200), ("new", 40, 100)):
        write(tmp_path / name, size, age)
    prune(tmp_path, 120)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "middle", "new"}
    prune(tmp_path, 100)
    assert {path.name for path in tmp_path.iterdir()} == {"middle", "new"}
    prune(tmp_path, 10)
    assert not list(tmp_path.iterdir())
    for name, size in (("whole", 10), ("empty", 0)):  # the second from when the disk was full
        (tmp_path / name).write_bytes(bytes(size))
    prune(tmp_path, 100)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_program_that_cannot_be_kept_is_not_worth_a_word(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
    before = {f"jax_{name}": getattr(jax.config, f"jax_{name}") for name in names}
    text = "persistent compilation cache entry for 'jit_f': OSError: [Errno 28] No space left on device"
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            assert use_cache() is not None
            for verb in ("writing", "reading"):
                warnings.warn(f"Error {verb} {text}", stacklevel=1)
        assert [str(warning.message) for warning in seen] == [f"Error reading {text}"]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_what_jax_was_told_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
        assert use_cache() is None and jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
        jax.config.update("jax_compilation_cache_dir", None)
        (tmp_path / "home").write_text("a file where the folder should be")
        assert use_cache() is None and jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.slow
def test_the_second_start_finds_its_programs_in_the_users_cache(tmp_path):
    changes = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}
    found = []
    for number in range(2):
        arguments = train_arguments(VAE, tmp_path / str(number), "--config.model.network.width=8")
        process = start("train", *arguments, env=environment(**changes))
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0 and err == "", err
        line = re.search(r"first step after [\d.]+ s, ([\d.]+) s of it compilation \((\d+) of (\d+) programs", out)
        assert line, out
        found.append((float(line[1]), int(line[2]), int(line[3])))
    assert found[0][1] == 0 and found[1][1] == found[1][2] == found[0][2] > 0
    assert list((tmp_path / "cache" / "genjax" / "compiled").rglob("*-cache"))


def test_the_first_step_says_how_long_it_compiled():
    watched = Compilation(time.monotonic() - 5.0)
    jax.jit(lambda x: jnp.sin(x) * 3.25)(jnp.ones(7)).block_until_ready()
    assert not watched.reported
    line = watched.report()
    match = re.fullmatch(r"first step after ([\d.]+) s, ([\d.]+) s of it compilation \((\d+) of (\d+) .*cache\)", line)
    assert match and watched.reported and 5.0 <= float(match[1]) < 60.0 and int(match[4]) >= 1
    assert int(Compilation(time.monotonic()).report().split(" of ")[-1].split()[0]) == 0  # counts from where it began


def test_speed_is_in_its_units(monkeypatch):
    speed = Cost("float32", 1).speed(rate=20.0, images_per_second=2560.0, flops=3e9)
    assert speed["milliseconds_per_step"] == 50.0 and speed["images_per_second"] == 2560.0
    assert speed["tflops_per_second"] == pytest.approx(0.06)
    assert 50 < speed["peak_memory_mb"] < 64_000 and "share_of_peak" not in speed  # nobody states a CPU's peak
    assert "tflops_per_second" not in Cost("float32", 1).speed(20.0, 2560.0, 0.0)
    kind = jax.devices()[0].device_kind
    monkeypatch.setitem(cost.PEAKS, kind, {"float32": 1e12})
    assert Cost("float32", 2).speed(20.0, 2560.0, 3e9)["share_of_peak"] == pytest.approx(0.03)
    assert "share_of_peak" not in Cost("bfloat16", 2).speed(20.0, 2560.0, 3e9)


def test_memory_is_that_of_the_process():
    before = peak_bytes()
    block = np.ones(2**26, np.uint8)  # 64 MB, touched
    assert block.sum() == 2**26 and peak_bytes() >= before > 2**25


def test_the_machine_has_one_name():
    assert compilation._machine() == compilation._machine()
    assert re.fullmatch(r"\w+-[0-9a-f]{12}", compilation._machine())


def test_a_gpu_is_asked_for_the_same_bits_each_time(monkeypatch):
    before = "--xla_backend_optimization_level=0"
    for deterministic, flags in ((False, before), (True, f"{before} --xla_gpu_deterministic_ops=true")):
        monkeypatch.setenv("XLA_FLAGS", before)
        with pytest.raises(UserError, match="jax finds no GPU"):  # there is none; by then XLA has been told
            select_platform("gpu", deterministic)
        assert os.environ["XLA_FLAGS"] == flags
