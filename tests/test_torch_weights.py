"""Weight files: read as PyTorch wrote them, refused where they are anything else.

The files are recorded by tests/reference/feature_networks.py.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from genjax.io.torch_weights import read_weights
from genjax.types import UserError
from tests.reference.feature_networks import file_arrays

RECORDED = np.load(Path(__file__).parent / "reference" / "feature_networks.npz")
FORMATS = ("zip", "legacy")


def recorded(name):
    return RECORDED[f"files/{name}"].tobytes()


def read(tmp_path, data, **options):
    path = tmp_path / "weights.pth"
    path.write_bytes(data)
    return read_weights(path, **options)


def refusal(tmp_path, data, **options):
    """The message, which is one line and names the file."""
    with pytest.raises(UserError) as caught:
        read(tmp_path, data, **options)
    message = str(caught.value)
    assert "\n" not in message and "weights.pth" in message
    return message


def check_arrays(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True, err_msg=name)
        assert found[name].flags.c_contiguous and found[name].flags.writeable, name


# What PyTorch wrote.


@pytest.mark.parametrize("name", FORMATS)
def test_arrays_come_back_as_they_were(tmp_path, name):
    """float16, bfloat16, int64, bool, uint8; part of a storage, a transposed view, a parameter, a scalar."""
    check_arrays(read(tmp_path, recorded(name)), file_arrays())


def test_nested_dictionaries_have_dotted_names(tmp_path):
    expected = {f"state_dict.{name}": array for name, array in file_arrays().items()}
    check_arrays(read(tmp_path, recorded("nested")), expected | {"sizes.0": file_arrays()["bias"]})


def test_a_compiled_module_gives_its_parameters_and_buffers(tmp_path):
    found = read(tmp_path, recorded("script"))
    expected = {"conv.weight": file_arrays()["conv.weight"], "conv.part": file_arrays()["conv.part"]}
    check_arrays(found, expected)
    frozen = read(tmp_path, recorded("frozen"))  # a compiler has made constants of them
    added = np.arange(1, 7, dtype=np.float32)
    check_arrays(frozen, {"constants.0": file_arrays()["conv.weight"], "constants.1": added})


def test_arrays_do_not_share_memory(tmp_path):
    found = read(tmp_path, recorded("zip"))
    found["conv.weight"][:] = 0
    np.testing.assert_array_equal(found["conv.part"], file_arrays()["conv.part"])


def test_npz_files_are_read_too(tmp_path):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **file_arrays())
    assert {k: v.tolist() for k, v in read(tmp_path, buffer.getvalue()).items()} == {
        k: v.tolist() for k, v in file_arrays().items()
    }
    buffer = io.BytesIO()
    np.savez(buffer, a=np.array([print], object))
    assert "allow_pickle=False" in refusal(tmp_path, buffer.getvalue())


# Hashes.


def test_the_hash_is_checked_in_full_or_by_its_first_digits(tmp_path):
    data = recorded("zip")
    digest = hashlib.sha256(data).hexdigest()
    for given in (digest, digest[:8], digest.upper()):
        assert read(tmp_path, data, sha256=given)
    other = "0" * 8 if digest[0] != "0" else "1" * 8
    message = refusal(tmp_path, data, sha256=other)
    assert f"has SHA-256 {digest}, not {other}" in message
    assert "has SHA-256" in refusal(tmp_path, data[:-1], sha256=digest)
    for wrong in ("", "abc", "not hexadecimal", digest + "0"):
        with pytest.raises(UserError, match="is no hash; accepted: 8 to 64 hexadecimal digits"):
            read(tmp_path, data, sha256=wrong)


# What is not whole.


@pytest.mark.parametrize("name", [*FORMATS, "script"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path, name):
    data = recorded(name)
    for length in [0, 1, 5, *range(20, len(data), len(data) // 40), len(data) - 1]:
        assert "cannot read" in refusal(tmp_path, data[:length])


@pytest.mark.parametrize("name", [*FORMATS, "script"])
def test_a_damaged_file_gives_a_line_or_arrays_and_never_another_error(tmp_path, name):
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = bytearray(recorded(name))
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        try:
            read(tmp_path, bytes(data))
        except UserError as error:
            assert "\n" not in str(error)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read .*nowhere.pth: No such file"):
        read_weights(tmp_path / "nowhere.pth")
    assert "neither an .npz file nor one that PyTorch wrote" in refusal(tmp_path, b"plain text")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "b")
    assert "neither data.pkl nor .npy files" in refusal(tmp_path, buffer.getvalue())
    assert "neither an .npz file nor one that PyTorch wrote" in refusal(tmp_path, pickle.dumps({"a": 1}))


# What would do harm.


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Pickler(pickle._Pickler):
    """Writes ``Storage`` as PyTorch does, and ``Global`` as a bare name."""

    def persistent_id(self, obj):
        return ("storage", Global("torch", obj.kind), obj.key, "cpu", obj.count) if isinstance(obj, Storage) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Rebuild):
            self.save(Global("torch._utils", "_rebuild_tensor_v2"))
            self.save((obj.storage, obj.offset, obj.size, obj.stride, False, OrderedDict()))
            self.write(b"R")
        else:
            super().save(obj, save_persistent_id)


class Global:
    def __init__(self, module, name):
        self.module, self.name = module, name


class Storage:
    def __init__(self, kind="FloatStorage", key="0", count=4):
        self.kind, self.key, self.count = kind, key, count


class Rebuild:
    def __init__(self, size, stride, offset=0, storage=None):
        self.size, self.stride, self.offset, self.storage = size, stride, offset, storage or Storage()


def archive(contents, storage=b"\0" * 16, raw=False, compression=zipfile.ZIP_STORED):
    """A zip file as torch.save writes it around a pickle."""
    buffer, file = io.BytesIO(), io.BytesIO()
    if not raw:
        Pickler(file, 2).dump(contents)
    with zipfile.ZipFile(buffer, "w", compression) as out:
        out.writestr("archive/data.pkl", contents if raw else file.getvalue())
        out.writestr("archive/data/0", storage)
    return buffer.getvalue()


def test_the_imitation_of_a_file_is_read(tmp_path):
    """Otherwise the refusals below would prove nothing."""
    values = np.arange(4, dtype=np.float32)
    found = read(tmp_path, archive({"a": Rebuild((2, 2), (1, 2))}, values.tobytes()))
    check_arrays(found, {"a": values.reshape(2, 2).T})


def harmful(marker):
    command = f"touch {marker}"
    stack_global = b"\x80\x04\x8c\x02os\x8c\x06system\x93" + pickle.dumps(command, 2)[2:-1] + b"\x85R."
    return {
        "os.system": pickle.dumps({"a": Call(__import__("os").system, command)}, 2),
        "builtins.eval": pickle.dumps(Call(eval, f"__import__('os').system({command!r})"), 2),
        "protocol 4": stack_global,
        "protocol 0": f"cos\nsystem\n(S'{command}'\ntR.".encode(),
        "instance": f"(S'{command}'\nios\nsystem\n.".encode(),
        "a method": b"ccollections\nOrderedDict.fromkeys\n)R.",
        "a module": b"c__torch__.a\nB\n)\x81.",
        "extension": b"\x80\x02\x82\x01.",
        "new object": pickle.dumps(Path(marker), 2),
    }


@pytest.mark.parametrize("kind", harmful("x"))
def test_a_pickle_that_calls_a_function_is_refused_and_not_run(tmp_path, kind):
    marker = tmp_path / "ran"
    payload = harmful(marker)[kind]
    for data in (archive(payload, raw=True), legacy(payload)):
        message = refusal(tmp_path, data)
        assert not marker.exists()
        if kind != "extension":
            assert "its pickle asks for" in message and "accepted: tensors, parameters and dictionaries" in message


def test_the_harmful_pickles_would_do_harm(tmp_path):
    for kind in ("os.system", "builtins.eval", "protocol 4", "protocol 0", "instance"):
        marker = tmp_path / kind.replace(" ", "")
        pickle.loads(harmful(marker)[kind])
        assert marker.exists(), kind


def legacy(payload):
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in head) + payload + pickle.dumps([], 2)


def test_a_pickle_cannot_change_what_the_reader_calls(tmp_path):
    """BUILD sets attributes; here on the functions that rebuild tensors, on their types, and on a dictionary."""
    attribute = b"}X\x05\x00\x00\x00dtypeX\x02\x00\x00\x00i8s"
    names = {b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"}
    for name in names:
        for state in (attribute, b"N" + attribute + b"\x86"):  # of the object's dictionary, and by setattr
            assert "damaged or no weight file" in refusal(tmp_path, archive(name + state + b"b.", raw=True))
    check_arrays(read(tmp_path, recorded("zip")), file_arrays())


TENSORS = {
    "past the end": (Rebuild((5,), (1,)), "reaches past its storage of 4 elements"),
    "offset": (Rebuild((2,), (1,), 3), "reaches past its storage"),
    "stride": (Rebuild((2, 2), (3, 1)), "reaches past its storage"),
    "huge": (Rebuild((10**9, 10**9), (0, 0)), "reaches past its storage"),
    "negative size": (Rebuild((-1,), (1,)), "numbers from zero up"),
    "negative stride": (Rebuild((2,), (-1,), 2), "numbers from zero up"),
    "float": (Rebuild((2.0,), (1,)), "numbers from zero up"),
    "ranks": (Rebuild((2, 2), (1,)), "2 sizes but 1 strides"),
    "no storage": (Rebuild((2,), (1,), storage="abc"), "something else than a storage"),
    "length": (Rebuild((2,), (1,), storage=Storage(count=5)), "data/0 has 16 bytes, its tensors say 20"),
    "type": (Rebuild((2,), (1,), storage=Storage("DoubleStorage")), "data/0 has 16 bytes, its tensors say 32"),
    "unknown type": (Rebuild((2,), (1,), storage=Storage("QInt8Storage")), "asks for torch.QInt8Storage"),
    "key": (Rebuild((2,), (1,), storage=Storage(key="1")), "data/1 is missing"),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path, kind):
    tensor, message = TENSORS[kind]
    assert message in refusal(tmp_path, archive({"a": tensor}))


def test_a_small_file_cannot_become_a_large_one(tmp_path):
    data = archive({"a": Rebuild((2,), (1,))}, b"\0" * 10**7, compression=zipfile.ZIP_DEFLATED)
    assert len(data) < 20_000
    assert "data/0 has 10000000 bytes, its tensors say 16" in refusal(tmp_path, data)
    payload = b"\x80\x02}r\xff\xff\xff\xff."  # the dictionary is to be number 2^32 - 1 of a table
    assert "object 4294967295 is numbered after 2 steps" in refusal(tmp_path, archive(payload, raw=True))
    shared = {"a": Rebuild((2,), (1,))}
    for _ in range(40):
        shared = {"l": shared, "r": shared}  # 2^40 names
    assert "more than" in refusal(tmp_path, archive(shared))
    own = {}
    own["self"] = own
    assert "nested more than" in refusal(tmp_path, archive(own))


def test_legacy_storages_must_be_those_of_the_tensors(tmp_path):
    data = recorded("legacy")
    keys_at = data.rindex(b"\x80\x02]")  # the list of storages, after the pickle of the tensors
    first = data.index(struct.pack("<q", 24), keys_at)
    changed = data[:first] + struct.pack("<q", 25) + data[first + 8 :]
    assert "has 25 elements, its tensors say 24" in refusal(tmp_path, changed)
    assert "is missing in it" in refusal(tmp_path, data[:keys_at] + pickle.dumps([], 2))
    assert "belongs to no tensor" in refusal(tmp_path, data[:keys_at] + pickle.dumps(["7"], 2))
    assert "version 1002" in refusal(tmp_path, data.replace(b"\x80\x02M\xe9\x03.", b"\x80\x02M\xea\x03.", 1))


def test_views_and_tensors_of_one_name_are_refused(tmp_path):
    twice = {"a": {"b": Rebuild((2,), (1,))}, "a.b": Rebuild((2,), (1,))}
    assert "two arrays of the name a.b" in refusal(tmp_path, archive(twice))
    lines = {"a\nb": {"c": Rebuild((2,), (1,))}, "a\nb.c": Rebuild((2,), (1,))}
    assert "two arrays of the name a b.c" in refusal(tmp_path, archive(lines))
    check_arrays(read(tmp_path, archive(Rebuild((0, 3), (3, 1)))), {"tensor": np.zeros((0, 3), np.float32)})
