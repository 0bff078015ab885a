"""Records what other packages give for genjax's metrics, and compares: `make verify-metrics`.

In an environment with tests/reference/metrics_requirements.txt, from the root of the repository,

    PYTHONPATH=. python tests/reference/metrics_reference.py

writes metrics.npz beside this file and the table of docs/evaluation.md; with --check it writes nothing, computes all
again, prints the table, and fails if ours or what is recorded differs by more than the tolerance. Inputs are made by
NumPy from a seed and not recorded. The ordinary tests compare with the recorded numbers and need none of the packages.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from genjax.metrics import disentanglement, frechet, information, kernel, memorisation, modes, pairs
from genjax.metrics.regression import fit_lasso
from tests.reference.comparison import Case, Record, main, other

SEED = 20040413
RECORDED = Path(__file__).with_name("metrics.npz")
RECORD = Record("metrics_reference", RECORDED, ("numpy", "torch"))


# Inputs.


def image_pairs(kind: str, count: int = 4, height: int = 37, width: int = 44, channels: int = 3):
    """Smooth images, and these with noise, more brightness and less contrast; uint8, or float64 in [-1, 1]."""
    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[:height, :width]
    waves = rng.uniform(0.02, 0.6, (count, 1, 1, channels, 2))
    clean = np.sin(waves[..., 0] * y[None, :, :, None] + waves[..., 1] * x[None, :, :, None])
    noise = rng.normal(size=clean.shape) * rng.uniform(0.05, 0.5, (count, 1, 1, 1))
    changed = np.clip(0.8 * clean + 0.1 + noise, -1.0, 1.0)
    if kind == "uint8":
        return tuple(np.round((images + 1.0) * 127.5).astype(np.uint8) for images in (clean, changed))
    return clean, changed


def features():
    """Two sets of correlated features of unequal size, float64 ``[300, 12]`` and ``[260, 12]``."""
    rng = np.random.default_rng(SEED + 1)
    mix = rng.normal(size=(12, 12)) / 3.0
    return rng.normal(size=(300, 12)) @ mix + 0.3, 1.1 * rng.normal(size=(260, 12)) @ mix + rng.normal(size=12) / 5.0


def distances():
    """Two sets of distances with ties, as rounding gives them."""
    rng = np.random.default_rng(SEED + 2)
    return np.round(rng.gamma(3.0, 1.0, 150), 1), np.round(rng.gamma(3.3, 1.0, 120), 1)


def codes_and_factors():
    """Codes float64 ``[2000, 5]``, each a mixture of factors int ``[2000, 4]``, and noise."""
    rng = np.random.default_rng(SEED + 3)
    factors = np.stack([rng.integers(0, kinds, 2000) for kinds in (3, 6, 10, 4)], axis=1)
    mix = np.array([[2.0, 0, 0, 0], [0, 1.0, 0, 0.5], [0, 0.2, 0.7, 0], [0.1, 0, 0, 1.0], [0, 0, 0, 0]])
    return factors @ mix.T + 0.4 * rng.normal(size=(2000, 5)), factors


def frequencies():
    """Modes int ``[500]`` of 30, unequally frequent."""
    rng = np.random.default_rng(SEED + 4)
    return rng.choice(30, 500, p=rng.dirichlet(np.ones(30)))


# What the packages give.


def their_ssim(first, second, data_range):
    function = other("skimage.metrics").structural_similarity
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    return [function(a, b, data_range=data_range, **settings) for a, b in zip(first, second, strict=True)]


def their_psnr(first, second, data_range):
    function = other("skimage.metrics").peak_signal_noise_ratio
    return [function(a, b, data_range=data_range) for a, b in zip(first, second, strict=True)]


def grey_tensors(first, second):
    """Each channel of each image by itself, ``[N C, 1, H, W]``."""
    return [other("torch").tensor(i.transpose(0, 3, 1, 2)).reshape(-1, 1, *i.shape[1:3]) for i in (first, second)]


def their_ms_ssim(first, second, data_range):
    values = other("pytorch_msssim").ms_ssim(*grey_tensors(first, second), data_range=data_range, size_average=False)
    return values.numpy().reshape(len(first), -1).mean(axis=1)


def their_scales(first, second, data_range):
    """The terms of torchmetrics' MS-SSIM, its border left out of the coarsest scale as it is out of the others.

    Its own function averages the coarsest scale over windows that reach into a reflected border, too, and averages
    over channels before the powers are taken.
    """
    a, b = grey_tensors(first, second)
    update = other("torchmetrics.functional.image.ssim")._ssim_update
    value = np.ones(len(a))
    for scale, weight in enumerate(pairs.SCALES):
        if scale < len(pairs.SCALES) - 1:
            mean = update(a, b, data_range=data_range, return_contrast_sensitivity=True)[1]
        else:
            mean = update(a, b, data_range=data_range, return_full_image=True)[1][..., 5:-5, 5:-5].mean((1, 2, 3))
        value *= np.maximum(mean.numpy(), 0.0) ** weight
        a, b = (other("torch").nn.functional.avg_pool2d(images, 2) for images in (a, b))
    return value.reshape(len(first), -1).mean(axis=1)


def their_frechet(first, second):
    torch, module = other("torch"), other("torchmetrics.image.fid")
    moments = [torch.tensor(m) for rows in (first, second) for m in (rows.mean(0), np.cov(rows, rowvar=False))]
    return float(module._compute_fid(*moments))


def their_poly_mmd(first, second):
    torch, module = other("torch"), other("torchmetrics.image.kid")
    return float(module.poly_mmd(torch.tensor(first), torch.tensor(second)))


def their_p_value(first, second):
    test = other("scipy.stats").mannwhitneyu
    return float(test(first, second, alternative="less", method="asymptotic", use_continuity=False).pvalue)


def their_kl():
    return other("scipy.stats").entropy(np.bincount(frequencies(), minlength=30), np.ones(30))


def their_nearest(first, second):
    return other("sklearn.neighbors").NearestNeighbors(n_neighbors=1).fit(second).kneighbors(first)[0][:, 0]


def their_information(score):
    codes, factors = codes_and_factors()
    # The last edge is left out, so that the largest value is in the last bin.
    binned = [np.digitize(code, np.histogram(code, 20)[1][:-1]) for code in codes.T]
    return np.array([[score(factor, code) for factor in factors.T] for code in binned])


def their_mig():
    score = other("sklearn.metrics").mutual_info_score
    ordered = np.sort(their_information(score), axis=0)
    entropies = [score(factor, factor) for factor in codes_and_factors()[1].T]
    return float(np.mean((ordered[-1] - ordered[-2]) / entropies))


def their_sap():
    regression = other("sklearn.linear_model").LinearRegression
    codes, factors = codes_and_factors()
    scores = [[regression().fit(c[:, None], f).score(c[:, None], f) for f in factors.T] for c in codes.T]
    ordered = np.sort(np.array(scores), axis=0)
    return float(np.mean(ordered[-1] - ordered[-2]))


def standardised():
    return tuple((array - array.mean(0)) / array.std(0) for array in codes_and_factors())


def their_lasso():
    lasso = other("sklearn.linear_model").Lasso
    codes, factors = standardised()
    model = lasso(alpha=0.02, fit_intercept=False, tol=1e-14, max_iter=100_000)
    return np.array([model.fit(codes, factor).coef_.copy() for factor in factors.T]).T


def their_dci():
    """Disentanglement and completeness of their lasso's weights, by scipy's entropy."""
    entropy = other("scipy.stats").entropy
    weights = np.abs(their_lasso())
    scores = []
    for table in (weights, weights.T):
        rows = table[table.sum(1) > 0]
        concentrated = 1.0 - entropy(rows, axis=1, base=rows.shape[1])
        scores.append(float(np.average(concentrated, weights=rows.sum(1))))
    return scores


# What is ours.


def our_information(score):
    codes, factors = codes_and_factors()
    return np.array([[score(code, factor) for factor in factors.T] for code in information.discretise(codes).T])


def our_frechet(first, second):
    return frechet.frechet_distance(frechet.fit(first), frechet.fit(second))


def our_kernel(first, second):
    return kernel.full_kernel_distance(first, second).value


def our_nearest(first, second):
    return memorisation.nearest(first, second).distances


def our_p_value(first, second):
    return memorisation.copying_test(first, second).p_value


def our_sap():
    return disentanglement.sap(disentanglement.squared_correlation(*codes_and_factors()))


def our_dci():
    importance = disentanglement.lasso_importance(*codes_and_factors())
    return [disentanglement.disentanglement(importance), disentanglement.completeness(importance)]


def cases() -> list[Case]:
    eight_bit, floats, large = image_pairs("uint8"), image_pairs("float"), image_pairs("float", 2, 176, 192)
    odd = image_pairs("float", 2, 187, 195)
    first, second = features()
    equal = first[: len(second)]
    image, learn, torch, stats = "scikit-image", "scikit-learn", "torchmetrics", "scipy"
    psnr, ssim, ms_ssim = pairs.psnr, pairs.ssim, pairs.ms_ssim
    mutual = [information.mutual_information, information.normalized_mutual_information]

    def theirs(name: str):
        return lambda: their_information(getattr(other("sklearn.metrics"), name))

    return [
        Case("PSNR, uint8", image, lambda: their_psnr(*eight_bit, 255), lambda: psnr(*eight_bit)),
        Case("PSNR, float", image, lambda: their_psnr(*floats, 2.0), lambda: psnr(*floats, 2.0)),
        Case("SSIM, uint8", image, lambda: their_ssim(*eight_bit, 255), lambda: ssim(*eight_bit)),
        Case("SSIM, float", image, lambda: their_ssim(*floats, 2.0), lambda: ssim(*floats, 2.0)),
        Case("MS-SSIM", "pytorch-msssim", lambda: their_ms_ssim(*large, 2.0), lambda: ms_ssim(*large, 2.0)),
        Case("MS-SSIM, terms", torch, lambda: their_scales(*odd, 2.0), lambda: ms_ssim(*odd, 2.0)),
        Case("Fréchet distance", torch, lambda: their_frechet(first, second), lambda: our_frechet(first, second), 1e-4),
        Case("kernel distance", torch, lambda: their_poly_mmd(equal, second), lambda: our_kernel(equal, second), 1e-4),
        Case("nearest distance", learn, lambda: their_nearest(first, second), lambda: our_nearest(first, second), 1e-4),
        Case("copying test, p-value", stats, lambda: their_p_value(*distances()), lambda: our_p_value(*distances())),
        Case("KL to uniform modes", stats, their_kl, lambda: modes.mode_coverage(frequencies(), 30).kl),
        Case("mutual information", learn, theirs("mutual_info_score"), lambda: our_information(mutual[0])),
        Case(
            "normalized mutual information",
            learn,
            theirs("normalized_mutual_info_score"),
            lambda: our_information(mutual[1]),
        ),
        Case("MIG", learn, their_mig, lambda: disentanglement.mig(*codes_and_factors())),
        Case("SAP", learn, their_sap, our_sap),
        Case("lasso weights", learn, their_lasso, lambda: fit_lasso(*codes_and_factors(), 0.02).weights),
        Case("DCI, lasso", f"{learn}, {stats}", their_dci, our_dci),
    ]


if __name__ == "__main__":
    sys.exit(main(RECORD, cases()))
