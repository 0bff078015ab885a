"""Weight files of PyTorch as NumPy arrays, without PyTorch and without running what the file says.

A ``.pth`` file holds a pickle, and unpickling runs any function that the pickle names. Here a name means one of a few
objects of this module that only build arrays and dictionaries; every other name is an error before anything is called.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import pickletools
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from genjax.types import UserError

_Order = Literal["<", ">"]
_MAGIC = 0x1950A86A20F9469CFC6C  # of files before PyTorch 1.6
_PROTOCOL = 1001
_BFLOAT16 = "bfloat16"  # has no NumPy type of its own
_STORAGES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": _BFLOAT16,
    "ByteStorage": "u1", "CharStorage": "i1", "ShortStorage": "i2", "IntStorage": "i4", "LongStorage": "i8",
    "BoolStorage": "?", "ComplexFloatStorage": "c8", "ComplexDoubleStorage": "c16",
}  # fmt: skip
# A dictionary can hold itself, or another twice, which holds another twice, and so on.
_MAX_DEPTH = 64
_MAX_ENTRIES = 200_000


def read_weights(path: str | os.PathLike[str], sha256: str | None = None) -> dict[str, np.ndarray]:
    """Arrays of a weight file by name.

    Args:
      path: ``.npz``, or what ``torch.save`` (before 1.6, too) or ``torch.jit.save`` wrote; told apart by content.
      sha256: the file's hash in hexadecimal, or its first 8 digits or more, as PyTorch puts them into file names.

    Returns:
      {name: array}, writable, contiguous, of the dtype stored; bfloat16 becomes float32, which holds it exactly. Names
      of nested dictionaries, lists and modules are joined by dots ("state_dict.conv.weight"); constants of a compiled
      module are "constants.0" and so on. What is no array (epochs, options) is left out.

    Raises:
      UserError: the file can't be read, has another hash, is cut short or damaged, or its pickle asks for anything but
        tensors, parameters and dictionaries.
    """
    try:
        data = Path(path).read_bytes()  # once: what is read is what was hashed
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    _check_hash(path, data, sha256)
    try:
        return _arrays(data)
    except UserError as error:  # names in it are the file's, which can put line breaks there
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())[:240]}") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise UserError(f"cannot read {path}: it is damaged or no weight file ({reason})") from error


def _check_hash(path: str | os.PathLike[str], data: bytes, sha256: str | None) -> None:
    if sha256 is None:
        return
    wanted, found = sha256.lower(), hashlib.sha256(data).hexdigest()
    if not 8 <= len(wanted) <= 64 or set(wanted) - set("0123456789abcdef"):
        raise UserError(f"sha256={sha256!r} is no hash; accepted: 8 to 64 hexadecimal digits")
    if not found.startswith(wanted):
        raise UserError(f"{path} has SHA-256 {found}, not {wanted}: another file, or one that is not whole")


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    """Arrays by name, from any of the formats."""
    if not data.startswith(b"PK\3\4"):
        return _flat(_legacy(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        roots = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if not roots:
            if all(name.endswith(".npy") for name in names):
                return dict(np.load(io.BytesIO(data), allow_pickle=False))
            raise UserError("it is a zip file with neither data.pkl nor .npy files in it")
        records = _Archive(archive, roots[0])
        if f"{roots[0]}constants.pkl" not in names:
            return _flat(records.unpickle("data", modules=False))
        module, constants = (records.unpickle(part, modules=True) for part in ("data", "constants"))
        return _flat({**_entries(module), "constants": constants})


def _flat(contents: Any) -> dict[str, np.ndarray]:
    """The arrays of nested dictionaries, lists and modules, in their order, by their dotted names."""
    found: dict[str, np.ndarray] = {}
    ahead = [("", contents, 0)]
    for _ in range(_MAX_ENTRIES):
        if not ahead:
            return found
        name, value, depth = ahead.pop()
        if depth > _MAX_DEPTH:
            break
        if isinstance(value, _Tensor):
            name = name or "tensor"
            if name in found:
                raise UserError(f"it has two arrays of the name {name}")
            found[name] = _array(value)
            continue
        parts = [(f"{name}.{key}" if depth else str(key), item, depth + 1) for key, item in _entries(value).items()]
        ahead += reversed(parts)
    raise UserError(f"it holds more than {_MAX_ENTRIES} entries, or nested more than {_MAX_DEPTH} deep")


def _entries(value: Any) -> dict:
    if isinstance(value, dict):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    return vars(value) if isinstance(value, _Module) else {}


# What a pickle may name. A pickle can set attributes on whatever it is given, so the functions are objects without any
# that can be set, and a class is made anew for each name.


class _Function:
    __slots__ = ()


class _Dictionary(dict):
    """An ordered dictionary without the attributes that PyTorch hangs on it (``_metadata``)."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        pass


class _Module:
    """An object of a compiled module: its attributes and nothing it could do."""


class _MakeDictionary(_Function):
    __slots__ = ()

    def __call__(self, items: Any = ()) -> _Dictionary:
        return _Dictionary(items)


class _First(_Function):
    """``_rebuild_parameter`` and the functions that give a list or dictionary its type: the first argument as it is."""

    __slots__ = ()

    def __call__(self, value: Any, *_: Any) -> Any:
        return value


class _Storage(NamedTuple):
    """A run of numbers, read when the first tensor asks for it."""

    dtype: str
    read: Callable[[], np.ndarray]


class _Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it; older files hold the storages after the pickle."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Rebuild(_Function):
    """``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
        numbers = [offset, *size, *stride]
        if not isinstance(storage, _Storage) or any(type(n) is not int or n < 0 for n in numbers):
            raise UserError("a tensor is described by something else than a storage and numbers from zero up")
        if len(size) != len(stride):
            raise UserError(f"a tensor has {len(size)} sizes but {len(stride)} strides")
        return _Tensor(storage, offset, tuple(size), tuple(stride))


class _Type(_Function):
    """A storage type: a name of the table of dtypes, and not callable."""

    __slots__ = ("dtype",)

    def __init__(self, dtype: str):
        object.__setattr__(self, "dtype", dtype)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(name)


_FUNCTIONS: dict[tuple[str, str], _Function] = {
    ("collections", "OrderedDict"): _MakeDictionary(),
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _First(),
    **{("torch", name): _Type(dtype) for name, dtype in _STORAGES.items()},
}
_OF_MODULES = ("restore_type_tag", "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
_FUNCTIONS_OF_MODULES = {("torch.jit._pickle", name): _First() for name in _OF_MODULES}


class _Unpickler(pickle.Unpickler):
    """Resolves the names above and no other.

    Args:
      storage: (dtype, key, number of elements) to a storage.
      modules: whether classes of compiled modules are accepted, too.
    """

    def __init__(self, file: io.BytesIO, storage: Callable[[str, str, int], _Storage] | None, modules: bool = False):
        super().__init__(file, encoding="utf-8")
        self._file, self._storage, self._modules = file, storage, modules

    def load(self) -> Any:
        """Reads one pickle. Python makes a table as long as the largest number in it, so that is checked before."""
        start = self._file.tell()
        for count, (opcode, number, _) in enumerate(pickletools.genops(self._file)):
            if opcode.name in ("PUT", "LONG_BINPUT") and (number or 0) > count:  # PyTorch counts up from 0
                raise UserError(f"its pickle is damaged: object {number} is numbered after {count} steps")
        self._file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _FUNCTIONS:
            return _FUNCTIONS[module, name]
        if self._modules and (module, name) in _FUNCTIONS_OF_MODULES:
            return _FUNCTIONS_OF_MODULES[module, name]
        if self._modules and module.split(".")[0] == "__torch__":
            return type("Module", (_Module,), {})
        asked = f"{module}.{name}"[:80]
        raise UserError(f"its pickle asks for {asked}; accepted: tensors, parameters and dictionaries (a state_dict)")

    def persistent_load(self, pid: Any) -> _Storage:
        if self._storage is None or type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise UserError("its pickle refers to something that is no storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if type(kind) is not _Type or type(key) is not str or type(count) is not int or count < 0:
            raise UserError("its pickle describes a storage by something else than a type, a name and a length")
        if len(pid) == 6 and pid[5] is not None:
            raise UserError("it holds views of storages, as PyTorch before 0.4 wrote them; save it again")
        return self._storage(kind.dtype, key, count)


def _array(tensor: _Tensor) -> np.ndarray:
    flat, empty = tensor.storage.read(), 0 in tensor.size
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.size, tensor.stride, strict=True))
    if not empty and (last >= flat.size or math.prod(tensor.size) > flat.size):  # the latter: repeated by a stride of 0
        raise UserError(f"a tensor of sizes {list(tensor.size)} reaches past its storage of {flat.size} elements")
    if empty:
        return np.zeros(tensor.size, flat.dtype)
    steps = tuple(step * flat.itemsize for step in tensor.stride)
    return np.array(np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.size, steps), order="C")


def _kind(dtype: str) -> np.dtype:
    return np.dtype("u2" if dtype == _BFLOAT16 else dtype)


def _numbers(raw: bytes, dtype: str, order: _Order) -> np.ndarray:
    """The elements of a storage, in the machine's byte order."""
    kind = _kind(dtype)
    flat = np.frombuffer(raw, kind.newbyteorder(order)).astype(kind, copy=False)
    return (flat.astype(np.uint32) << 16).view(np.float32) if dtype == _BFLOAT16 else flat


class _Archive:
    """The zip format: ``data.pkl``, and a file for each storage in ``data/``."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        self._archive, self._root = archive, root
        self._order: _Order = "<"
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") == b"big":
            self._order = ">"

    def unpickle(self, part: str, modules: bool) -> Any:
        """What ``<part>.pkl`` holds; the storages of its tensors are in the folder ``<part>``."""
        stored: dict[tuple[str, str], np.ndarray] = {}

        def storage(dtype: str, key: str, count: int) -> _Storage:
            def read() -> np.ndarray:
                if (dtype, key) not in stored:
                    raw = self._record(f"{part}/{key}", count * _kind(dtype).itemsize)
                    stored[dtype, key] = _numbers(raw, dtype, self._order)
                return stored[dtype, key]

            return _Storage(dtype, read)

        return _Unpickler(io.BytesIO(self._record(f"{part}.pkl")), storage, modules).load()

    def _record(self, name: str, size: int | None = None) -> bytes:
        try:
            stated = self._archive.getinfo(self._root + name).file_size
        except KeyError:
            raise UserError(f"{name} is missing in it") from None
        if size not in (None, stated):  # before unpacking it, which can make a small file a large one
            raise UserError(f"{name} has {stated} bytes, its tensors say {size}")
        return self._archive.read(self._root + name)


def _legacy(data: bytes) -> Any:
    """The format before PyTorch 1.6: magic number, version, machine, the pickle, names of storages, the storages."""
    file = io.BytesIO(data)
    if not data.startswith(b"\x80") or _Unpickler(file, None).load() != _MAGIC:
        raise UserError("it is neither an .npz file nor one that PyTorch wrote")
    if (version := _Unpickler(file, None).load()) != _PROTOCOL:
        raise UserError(f"it is of version {version!r} of PyTorch's format; accepted: {_PROTOCOL}")
    machine = _Unpickler(file, None).load()
    order: _Order = "<" if machine.get("little_endian", sys.byteorder == "little") else ">"
    wanted: dict[str, tuple[str, int]] = {}
    found: dict[str, np.ndarray] = {}

    def storage(dtype: str, key: str, count: int) -> _Storage:
        if wanted.setdefault(key, (dtype, count)) != (dtype, count):
            raise UserError(f"storage {key} is described in two ways")
        return _Storage(dtype, lambda: found[key])

    contents = _Unpickler(file, storage).load()
    for key in _Unpickler(file, None).load():
        if key not in wanted:
            raise UserError(f"storage {key!r} belongs to no tensor")
        dtype, count = wanted[key]
        stated = int.from_bytes(file.read(8), "little" if order == "<" else "big", signed=True)
        if stated != count:
            raise UserError(f"storage {key} has {stated} elements, its tensors say {count}")
        raw = file.read(count * _kind(dtype).itemsize)
        if len(raw) < count * _kind(dtype).itemsize:
            raise UserError(f"it ends in the middle of storage {key}")
        found[key] = _numbers(raw, dtype, order)
    if missing := sorted(set(wanted) - set(found)):
        raise UserError(f"storage {missing[0]} is missing in it")
    return contents
