"""Records what PyTorch's Inception-v3, EfficientNet-Lite0, resizing and files are, for tests/test_feature_networks.py.

    python -m venv reference
    reference/bin/pip install torch==2.13.0 numpy pillow==13.0.0 scipy==1.17.1 tqdm
    reference/bin/pip install --no-deps torchvision==0.29.1 torch-fidelity==0.4.0 pytorch-fid==0.3.0 clean-fid==0.1.35
    reference/bin/python tests/reference/feature_networks.py weights/efficientnet_lite0_imagenet_f16.npz

writes feature_networks.npz beside this file. Weights and images are drawn by NumPy from a seed and a name, here and in
the tests, so the file holds results only; of maps it holds every few channels.

``inception/...``     torch-fidelity's network without its resizing on ``small_images``; "fidelity", "pytorch_fid" and
                      "clean" are the 2048 features of ``icons`` with all of each package's preparation. clean-fid's own
                      network is a download, so its images go through torch-fidelity's
``efficientnet/...``  a reading of the architecture in PyTorch below, on ``small_images`` as ``(x - 127) / 128``;
                      "pretrained" are its logits with the weights of the file
``resize/...``        what each package makes of ``resize_images``, at the rows and columns ``SAMPLE``
``files/...``         the bytes of files that torch.save and torch.jit.save wrote, of ``file_arrays``
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

SEED = 20151205
SAMPLE = np.r_[0:4, 20:280:20, 295:299]
SIZES = {"up": (32, 45), "down": (640, 513), "mixed": (299, 120)}
INCEPTION_STRIDE, EFFICIENTNET_STRIDE = 16, 8  # of the channels that are recorded
BLOCKS = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def random_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """float32 arrays that keep the size of activations, with batch norms that do something."""
    weights = {}
    for name, shape in shapes.items():
        rng = generator(name)
        if len(shape) > 1:
            gain = 2.0 if len(shape) == 4 else 1.0
            weights[name] = rng.standard_normal(shape, np.float32) * np.float32((gain / np.prod(shape[1:])) ** 0.5)
        elif name.endswith(("running_var", "weight")):
            weights[name] = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        else:
            weights[name] = (0.2 * rng.standard_normal(shape)).astype(np.float32)
    return weights


def small_images() -> np.ndarray:
    """uint8 [2, 107, 139, 3]: odd sizes, and a last grid of 2x3 for Inception."""
    return generator("small").integers(0, 256, (2, 107, 139, 3), np.uint8)


def icons() -> np.ndarray:
    """uint8 [1, 32, 32, 3], to be enlarged to 299x299."""
    return generator("icons").integers(0, 256, (1, 32, 32, 3), np.uint8)


def resize_images(size: tuple[int, int]) -> np.ndarray:
    """uint8 [1, *size, 3]."""
    return generator(f"resize {size}").integers(0, 256, (1, *size, 3), np.uint8)


def file_arrays() -> dict[str, np.ndarray]:
    """What the recorded files hold: several dtypes, a part of a larger storage, and a transposed view."""
    rng = generator("files")
    base = rng.standard_normal((4, 6)).astype(np.float32)
    return {
        "conv.weight": base, "conv.part": base[1:3, ::2], "conv.transposed": base.T, "bias": base[0].astype(np.float16),
        "brain": (base[:, 0].view(np.uint32) & 0xFFFF0000).view(np.float32),
        "count": np.array(7), "mask": base[0] > 0, "bytes": np.arange(5, dtype=np.uint8), "wide": base[3].astype(float),
    }  # fmt: skip


def lite0(torch, weights, x):
    """EfficientNet-Lite0 on [B, 3, H, W], as its seven stages, pooled features and logits."""
    F = torch.nn.functional

    def conv(x, name, stride=1, groups=1):
        kernel = weights[f"{name}.weight"]
        pads = []
        for size, taps in zip(x.shape[:1:-1], kernel.shape[:1:-1], strict=True):  # width, then height
            total = max((-(-size // stride) - 1) * stride + taps - size, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), kernel, stride=stride, groups=groups)

    def norm(x, name):
        parts = [weights[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, eps=1e-3)

    x, stages, number = F.relu6(norm(conv(x, "_conv_stem", 2), "_bn0")), [], 0
    for repeats, _, first_stride, expansion, features in BLOCKS:
        for i in range(repeats):
            block, stride, h = f"_blocks.{number}.", first_stride if i == 0 else 1, x
            if expansion > 1:
                h = F.relu6(norm(conv(h, block + "_expand_conv"), block + "_bn0"))
            h = F.relu6(norm(conv(h, block + "_depthwise_conv", stride, h.shape[1]), block + "_bn1"))
            h = norm(conv(h, block + "_project_conv"), block + "_bn2")
            x = x + h if stride == 1 and x.shape[1] == features else h
            number += 1
        stages.append(x)
    pooled = F.relu6(norm(conv(x, "_conv_head"), "_bn1")).mean((2, 3))
    return stages, pooled, F.linear(pooled, weights["_fc.weight"], weights["_fc.bias"])


def lite0_shapes() -> dict[str, tuple[int, ...]]:
    shapes = {"_conv_stem.weight": (32, 3, 3, 3), "_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    norms, inputs, number = {"_bn0": 32, "_bn1": 1280}, 32, 0
    for repeats, kernel, _, expansion, features in BLOCKS:
        for _ in range(repeats):
            block, wide = f"_blocks.{number}.", inputs * expansion
            if expansion > 1:
                shapes[block + "_expand_conv.weight"] = (wide, inputs, 1, 1)
                norms[block + "_bn0"] = wide
            shapes[block + "_depthwise_conv.weight"] = (wide, 1, kernel, kernel)
            shapes[block + "_project_conv.weight"] = (features, wide, 1, 1)
            norms |= {block + "_bn1": wide, block + "_bn2": features}
            inputs, number = features, number + 1
    shapes["_conv_head.weight"] = (1280, inputs, 1, 1)
    for name, size in norms.items():
        shapes |= {f"{name}.{part}": (size,) for part in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def load(name: str):
    """A module by name: the project's own environment has none of these."""
    return importlib.import_module(name)


def record_inception(torch, recorded: dict) -> None:
    fidelity = load("torch_fidelity.feature_extractor_inceptionv3")
    pytorch_fid = load("pytorch_fid.inception")
    cleanfid = load("cleanfid.resize")
    names = ["64", "192", "768", "2048", "logits_unbiased", "logits"]
    seen: dict = {}

    class Extractor(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, _):
            shapes = {k: tuple(v.shape) for k, v in self.state_dict().items() if not k.endswith("batches_tracked")}
            seen["shapes"], seen["weights"] = shapes, {k: torch.tensor(v) for k, v in random_weights(shapes).items()}
            return super().load_state_dict(seen["weights"])

    fidelity.load_state_dict_from_url = lambda *_, **__: {}
    extractor = Extractor("inception", names)
    pytorch_fid.load_state_dict_from_url = lambda *_, **__: seen["weights"]
    network = pytorch_fid.InceptionV3([0, 1, 2, 3]).eval()
    recorded["inception/shapes"] = json.dumps(seen["shapes"])

    small = torch.tensor(small_images().transpose(0, 3, 1, 2))
    enlarged = fidelity.interpolate_bilinear_2d_like_tensorflow1x
    icon = torch.tensor(icons().transpose(0, 3, 1, 2))
    recorded["inception/fidelity"] = extractor(icon)[3]
    recorded["inception/pytorch_fid"] = network(icon.float() / 255)[3][:, :, 0, 0]
    clean = cleanfid.build_resizer("clean")(icons()[0])[None].transpose(0, 3, 1, 2)
    # From here on images are taken as they come; what clean-fid resizes is no uint8.
    fidelity.interpolate_bilinear_2d_like_tensorflow1x = lambda x, **_: x
    fidelity.vassert = lambda *_: None
    recorded["inception/clean"] = extractor(torch.tensor(clean))[3]
    features = dict(zip(names, extractor(small), strict=True))
    for name in names:
        recorded[f"inception/{name}"] = features[name]
    network.resize_input = False
    maps = network(small.float() / 256)  # 2 x / 256 - 1 is (x - 128) / 128
    for i, (name, value) in enumerate(zip(names[:3], maps, strict=False)):
        recorded[f"inception/map{i}"] = value[:, ::INCEPTION_STRIDE].permute(0, 2, 3, 1)
        print(name, "pytorch-fid against torch-fidelity", (value.mean((2, 3)) - features[name]).abs().max())

    for name, size in SIZES.items():
        images = resize_images(size)
        x = torch.tensor(images.transpose(0, 3, 1, 2)).float()
        made = {
            "legacy": enlarged(x, size=(299, 299), align_corners=False).permute(0, 2, 3, 1).numpy(),
            "torch": torch.nn.functional.interpolate(x / 255, size=(299, 299), mode="bilinear", align_corners=False)
            .permute(0, 2, 3, 1).numpy(),
            "clean": cleanfid.build_resizer("clean")(images[0])[None],
        }  # fmt: skip
        for mode, value in made.items():
            recorded[f"resize/{name}/{mode}"] = value[:, SAMPLE][:, :, SAMPLE]


def record_efficientnet(torch, recorded: dict) -> None:
    weights = {name: torch.tensor(value) for name, value in random_weights(lite0_shapes()).items()}
    x = (torch.tensor(small_images().transpose(0, 3, 1, 2)).float() - 127) / 128
    stages, pooled, logits = lite0(torch, weights, x)
    for i, stage in enumerate(stages):
        recorded[f"efficientnet/map{i}"] = stage[:, ::EFFICIENTNET_STRIDE].permute(0, 2, 3, 1)
    recorded |= {"efficientnet/pooled": pooled, "efficientnet/logits": logits}
    pretrained = {name: torch.tensor(value).float() for name, value in np.load(sys.argv[1]).items()}
    recorded["efficientnet/pretrained"] = lite0(torch, pretrained, x)[2]


def record_files(torch, recorded: dict) -> None:
    arrays = file_arrays()
    tensors = {name: torch.tensor(np.array(value)) for name, value in arrays.items()}
    tensors["conv.part"] = tensors["conv.weight"][1:3, ::2]
    tensors["conv.transposed"] = torch.nn.Parameter(tensors["conv.weight"].T)
    tensors["brain"] = tensors["brain"].bfloat16()
    state = load("collections").OrderedDict(tensors)
    state._metadata = {"": {"version": 1}}

    class Inner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(tensors["conv.weight"])
            self.register_buffer("part", tensors["conv.part"])

        def forward(self, x):
            return x @ self.weight + torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])

    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.sizes = Inner(), [3, 4]

        def forward(self, x):
            return self.conv(x)

    script, frozen = torch.jit.script(Outer()), torch.jit.freeze(torch.jit.script(Outer().eval()))
    saved = {
        "zip": lambda file: torch.save(state, file),
        "nested": lambda file: torch.save({"state_dict": state, "epoch": 3, "sizes": [tensors["bias"]]}, file),
        "legacy": lambda file: torch.save(state, file, _use_new_zipfile_serialization=False),
        "script": lambda file: torch.jit.save(script, file),
        "frozen": lambda file: torch.jit.save(frozen, file),
    }
    for name, save in saved.items():
        buffer = io.BytesIO()
        save(buffer)
        recorded[f"files/{name}"] = np.frombuffer(buffer.getvalue(), np.uint8)


def main() -> None:
    torch = load("torch")
    torch.set_num_threads(1)
    # torchvision's compiled part may not fit this PyTorch; only its Python modules are used.
    torch.library.register_fake = lambda *_, **__: lambda function: function
    recorded: dict = {}
    with torch.no_grad():
        record_inception(torch, recorded)
        record_efficientnet(torch, recorded)
        record_files(torch, recorded)
    packages = ("torch", "torchvision", "torch-fidelity", "pytorch-fid", "clean-fid", "pillow", "numpy")
    version = load("importlib.metadata").version
    recorded["versions"] = json.dumps({package: version(package) for package in packages})
    output = Path(__file__).with_suffix(".npz")
    np.savez_compressed(output, **{name: np.asarray(value) for name, value in recorded.items()})
    print({name: np.asarray(value).nbytes for name, value in recorded.items()})
    print(recorded["versions"], output.stat().st_size)


if __name__ == "__main__":
    main()
