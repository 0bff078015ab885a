"""Checkpoints: what was saved comes back bit for bit, and what cannot come back says so."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.io.checkpoint import FORMAT, Checkpoints
from genjax.io.files import folder_lock, write_fingerprints
from genjax.io.leaves import named
from genjax.io.manifest import versions
from genjax.types import UserError

ROOT = Path(__file__).resolve().parents[2]


class Moments(NamedTuple):
    mu: dict
    count: jax.Array


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt: dict
    extra: dict


def make_state(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    kernel = jnp.asarray(rng.normal(size=(3, 5)), jnp.float32).at[0, 0].set(jnp.nan).at[0, 1].set(-0.0)
    return State(
        step=jnp.uint32(2**32 - 1 - seed),
        params={"net": {"Dense_0": {"kernel": kernel, "bias": jnp.asarray(rng.normal(size=5), jnp.bfloat16)}}},
        opt={"net": (Moments(mu={"k": kernel + 1}, count=jnp.int32(-seed)), (), jnp.array([True, False]))},
        extra={"nothing": jnp.zeros((0, 4), jnp.float16)},
    )


def abstract(state):
    return jax.eval_shape(lambda: state)


def bits(tree) -> list[tuple[str, tuple, bytes]]:
    return [(str(x.dtype), x.shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]


def fill(folder, values: dict[int, float | None], **options) -> Checkpoints:
    checkpoints = Checkpoints(folder, **options)
    for step, value in values.items():
        checkpoints.save(step, {"x": jnp.full(3, step)}, None if value is None else {"loss": value})
    checkpoints.close()
    return checkpoints


X = {"x": jax.ShapeDtypeStruct((3,), jnp.int32)}


def test_round_trip_is_bit_exact(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path / "deep" / "folder") as checkpoints:
        assert checkpoints.save(7, state, {"loss": math.nan}, {"config": {"lr": [1, 2.5]}, "limit": math.inf})
    restored, metadata = Checkpoints(tmp_path / "deep" / "folder", read_only=True).restore("latest", abstract(state))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert bits(restored) == bits(state)
    assert metadata == {"config": {"lr": [1, 2.5]}, "limit": math.inf}
    assert math.isnan(checkpoints.metrics(7)["loss"]) and checkpoints.metadata("latest") == metadata


def test_a_manifest_says_what_wrote_a_step_and_what_lies_in_it(tmp_path):
    config = {"seed": 3, "model": {"limits": (1, math.inf)}}
    with Checkpoints(tmp_path, config=config) as checkpoints:
        checkpoints.save(1, make_state())
    found = Checkpoints(tmp_path, read_only=True).manifest("latest")
    assert found["format"] == FORMAT and found["config"] == {"seed": 3, "model": {"limits": [1, math.inf]}}
    assert {"python", "genjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy"} <= found["versions"].keys()
    assert found["versions"]["jax"] == jax.__version__
    assert found["leaves"].keys() == named(make_state()).keys()
    assert found["leaves"]["params/net/Dense_0/bias"] == "bfloat16[5]"


def rewrite_record(folder, change) -> None:
    path = folder / "_CHECKPOINT_METADATA"
    record = json.loads(path.read_text())
    change(record["custom_metadata"])
    path.write_text(json.dumps(record))
    (folder / "files.json").unlink()
    write_fingerprints(folder)


def test_a_step_without_a_manifest_is_read_and_one_of_a_later_format_is_not(tmp_path):
    fill(tmp_path, {1: None, 2: 0.5}, best_metric="loss")
    rewrite_record(tmp_path / "1", lambda record: [record.pop(name) for name in ("format", "config", "versions")])
    older = Checkpoints(tmp_path, read_only=True)
    assert older.restore(1, X)[0]["x"][0] == 1 and older.manifest(1) == {"leaves": {"x": "int32[3]"}}
    rewrite_record(tmp_path / "2", lambda record: record.update(format=FORMAT + 1, leaves="otherwise"))
    later = Checkpoints(tmp_path, best_metric="loss")
    said: list[str] = []
    assert later.resume_step(said.append) == 2 and not said  # it is whole, so nothing behind it is used or renamed
    for which in (2, "latest"):
        with pytest.raises(UserError) as caught:
            later.restore(which, X)
        assert str(caught.value) == (
            f"checkpoint step 2 in {tmp_path} is of format {FORMAT + 1}, written by "
            f"genjax {versions()['genjax']}; accepted: up to {FORMAT}"
        )
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


def test_restored_arrays_lie_where_the_abstract_leaf_says(tmp_path):
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.P("data"))
    checkpoints = fill(tmp_path, {1: None})
    state, _ = checkpoints.restore(1, {"x": jax.ShapeDtypeStruct((3,), jnp.int32, sharding=sharding)})
    assert state["x"].sharding == sharding
    state, _ = checkpoints.restore(1, X)
    assert state["x"].devices() == {jax.devices()[0]}


def test_state_may_be_donated_right_after_save(tmp_path):
    update = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    x = jnp.arange(1 << 18, dtype=jnp.float32)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"x": x})
        x = update(x)
        x.block_until_ready()
    restored, _ = checkpoints.restore(0, abstract({"x": x}))
    assert np.array_equal(restored["x"], np.arange(1 << 18))


def test_latest_and_best_are_kept_and_nothing_else(tmp_path):
    values = {1: 5.0, 2: 1.0, 3: None, 4: math.nan, 5: -math.inf, 6: 1.0, 7: 3.0}
    checkpoints = fill(tmp_path, values, best_metric="loss")
    assert checkpoints.steps() == [2, 6, 7] == sorted(int(name) for name in os.listdir(tmp_path))
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (7, 2)
    assert checkpoints.restore("best", X)[0]["x"][0] == 2
    largest = Checkpoints(tmp_path, best_metric="loss", best_mode="max", read_only=True)
    assert largest.best_step() == 7
    one = fill(tmp_path / "one", {1: None, 2: None, 3: None}, keep_latest=1)
    assert one.steps() == [3]


def test_multiples_are_kept_for_good(tmp_path):
    values = {step: float(step != 4) for step in (0, 2, 3, 4, 5, 6, 9, 10, 11)}
    checkpoints = fill(tmp_path, values, best_metric="loss", keep_every=3)
    assert checkpoints.steps() == [0, 3, 4, 6, 9, 10, 11]
    assert fill(tmp_path, {12: None}, keep_every=6).steps() == [0, 6, 11, 12]


def test_save_without_a_usable_metric_is_never_best(tmp_path):
    checkpoints = fill(tmp_path, {1: None, 2: math.nan}, best_metric="loss")
    assert checkpoints.best_step() is None
    with pytest.raises(UserError, match=r"none has a finite 'loss' \(metrics recorded: loss\)"):
        checkpoints.restore("best", X)
    assert Checkpoints(tmp_path).best_step() is None


def test_existing_step_is_left_alone(tmp_path):
    checkpoints = fill(tmp_path, {1: None})
    assert not checkpoints.save(1, {"x": jnp.zeros(3, jnp.int32)})
    checkpoints.close()
    checkpoints.close()
    assert checkpoints.restore(1, X)[0]["x"][0] == 1


def test_missing_steps(tmp_path):
    empty = Checkpoints(tmp_path / "none", read_only=True)
    assert empty.steps() == [] and empty.latest_step() is None and empty.best_step() is None
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match=r"no checkpoint in .*none"):
        empty.restore("latest", X)
    with pytest.raises(UserError, match=r"no checkpoint 5 in .*there are: 1"):
        fill(tmp_path, {1: None}).restore(5, X)
    with pytest.raises(UserError, match="for reading only"):
        empty.save(1, {"x": jnp.zeros(3)})


@pytest.mark.parametrize("options", [{"keep_latest": 0}, {"keep_every": 0}, {"best_mode": "least"}])
def test_options_out_of_range(tmp_path, options):
    with pytest.raises(UserError, match=next(iter(options))):
        Checkpoints(tmp_path, **options)


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Checkpoints(tmp_path / "file" / "checkpoints")


def test_metadata_that_json_cannot_hold(tmp_path):
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=r"metadata\.f is of type function"):
        checkpoints.save(1, {"x": jnp.zeros(3)}, metadata={"f": make_state})
    assert checkpoints.steps() == []


def test_different_structure_names_the_paths(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    dense = {"kernel": jnp.zeros((3, 6)), "scale": jnp.zeros(2)}
    other = state.replace(params={"net": {"Dense_0": dense}}, step=jnp.int32(0))
    with pytest.raises(UserError) as caught:
        checkpoints.restore("latest", abstract(other))
    message = str(caught.value)
    assert "\n" not in message and f"step 3 in {tmp_path}" in message
    for part in (
        "params/net/Dense_0/kernel is float32[3,5] in the checkpoint but float32[3,6] in this model",
        "params/net/Dense_0/scale is not in the checkpoint",
        "params/net/Dense_0/bias is only in the checkpoint",
        "step is uint32[] in the checkpoint but int32[] in this model",
    ):
        assert part in message
    with pytest.raises(UserError, match="and 21 more"):
        checkpoints.restore("latest", {f"a{i}": jax.ShapeDtypeStruct((), jnp.int32) for i in range(19)})


def test_partial_restore(tmp_path):
    state = make_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, metadata={"a": 1})
    part, metadata = checkpoints.restore_partial("latest", abstract({"params": state.params, "extra": state.extra}))
    assert bits(part) == bits({"params": state.params, "extra": state.extra}) and metadata == {"a": 1}
    with pytest.raises(UserError, match="ema is not in the checkpoint"):
        checkpoints.restore_partial("latest", {"ema": jax.ShapeDtypeStruct((), jnp.int32)})


def damage(path, how: str) -> None:
    data = path.read_bytes()
    middle = len(data) // 2
    if how == "gone":
        path.unlink()
    else:
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"truncated": data[:middle], "empty": b"", "flipped": flipped}[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "gone", "flipped"])
def test_damaged_file_is_never_restored_as_something_else(tmp_path, how, capfd, caplog):
    state = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(100, 100)), jnp.float32), "n": jnp.int32(1)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.save(2, state)
    files = [p for p in (tmp_path / "2").rglob("*") if p.is_file() and p.stat().st_size and p.name != "files.json"]
    assert len(files) >= 5
    capfd.readouterr()
    for path in files:
        whole = path.read_bytes()
        damage(path, how)
        with pytest.raises(UserError, match=f"step 2 in {tmp_path} is unreadable .* step before it is 1") as caught:
            Checkpoints(tmp_path, read_only=True).restore(2, abstract(state))
        assert "\n" not in str(caught.value)
        caplog.clear()
        found, _ = Checkpoints(tmp_path, read_only=True).restore("latest", abstract(state))
        assert np.array_equal(found["w"], state["w"])
        assert [f"checkpoint step 2 in {tmp_path} is damaged (" in line for line in caplog.messages] == [True]
        assert caplog.messages[0].endswith("using 1")
        path.write_bytes(whole)
    assert capfd.readouterr() == ("", "") and sorted(os.listdir(tmp_path)) == ["1", "2"]
    damage(tmp_path / "2" / "_CHECKPOINT_METADATA", how)
    with Checkpoints(tmp_path, best_metric="loss") as again:  # a broken step stops neither saving nor pruning
        again.save(3, state, {"loss": 1.0})
        again.save(4, state)
    assert again.steps() == [3, 4] and again.best_step() == 3


def test_step_being_read_is_not_removed(tmp_path):
    fill(tmp_path, {1: None, 2: None})
    with folder_lock(tmp_path / "1", exclusive=False):
        assert fill(tmp_path, {3: None}).steps() == [1, 2, 3]
    assert fill(tmp_path, {4: None}).steps() == [3, 4]


def test_opening_removes_leftovers_but_not_when_read_only(tmp_path):
    fill(tmp_path, {1: None})
    for name in ("2.orbax-checkpoint-tmp", "0.deleted"):
        (tmp_path / name / "state").mkdir(parents=True)
    reader = Checkpoints(tmp_path, read_only=True)
    assert reader.restore("latest", X)[0]["x"][0] == 1 and len(os.listdir(tmp_path)) == 3
    assert Checkpoints(tmp_path).steps() == [1] and os.listdir(tmp_path) == ["1"]


def test_no_log_lines_at_level_info(tmp_path, capfd, caplog):
    with caplog.at_level(logging.INFO, logger="absl"):
        fill(tmp_path, {1: None}).restore(1, X)
        logging.getLogger("absl").info("from elsewhere")
    assert [record.getMessage() for record in caplog.records] == ["from elsewhere"]
    assert capfd.readouterr().err == ""


TRAIN = """
import sys
import numpy as np
from genjax.io.checkpoint import Checkpoints
with Checkpoints(sys.argv[1], keep_latest=int(sys.argv[2])) as checkpoints:
    first = (checkpoints.latest_step() or 0) + 1
    for step in range(first, first + int(sys.argv[3])):
        checkpoints.save(step, {"x": np.random.default_rng(step).normal(size=50_000).astype(np.float32)})
        print(step - 1, flush=True)  # this save has waited for the one before
"""
TRAINED = {"x": jax.ShapeDtypeStruct((50_000,), jnp.float32)}


def train(folder, keep_latest: int, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", TRAIN, str(folder), str(keep_latest), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_kill_during_save_leaves_whole_checkpoints(tmp_path):
    folder = tmp_path / "checkpoints"
    for lines, delay in ((3, 0.007), (5, 0.031), (2, 0.053)):
        child = train(folder, 2, 1_000)
        assert child.stdout is not None
        finished = [int(child.stdout.readline()) for _ in range(lines)]
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        finished += [int(line) for line in child.communicate()[0].split()]
        checkpoints = Checkpoints(folder)
        assert checkpoints.latest_step() >= finished[-1] and all(name.isdigit() for name in os.listdir(folder))
        for step in checkpoints.steps():
            state, _ = checkpoints.restore(step, TRAINED)
            assert np.array_equal(state["x"], np.random.default_rng(step).normal(size=50_000).astype(np.float32))


def test_reader_beside_a_live_training(tmp_path, capfd):
    reader = Checkpoints(tmp_path, read_only=True)
    child = train(tmp_path, 1, 40)
    assert child.stdout is not None
    for _ in range(2):
        child.stdout.readline()
    seen = []
    while child.poll() is None:
        first = float(reader.restore("latest", TRAINED)[0]["x"][0])
        seen.append(next(s for s in range(1, 41) if np.float32(np.random.default_rng(s).normal()) == np.float32(first)))
    child.communicate()
    assert child.returncode == 0 and seen == sorted(seen) and len(set(seen)) > 3
    assert reader.latest_step() == 40 and len(reader.steps()) <= 2
    assert capfd.readouterr().err == ""
