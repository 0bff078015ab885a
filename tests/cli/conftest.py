"""One tiny run of each family, shared by the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import CLASSIFIER, GAN, VAE, run, run_many, train_arguments

SMALL_VAE = ("--config.model.network.width=8", "--config.total=12 steps", "--config.data.test=test[:40]")


@pytest.fixture(scope="session")
def vae_arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return train_arguments(VAE, tmp_path_factory.mktemp("cli") / "runs" / "vae", *SMALL_VAE)


@pytest.fixture(scope="session")
def vae_run(vae_arguments):
    """The work folder of a VAE and what its training printed."""
    answer = run("train", *vae_arguments)
    assert answer.status == 0, answer
    return Path(vae_arguments[1].partition("=")[2]), answer


@pytest.fixture(scope="session")
def other_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The work folders of a classifier and of a GAN without labels."""
    folder = tmp_path_factory.mktemp("cli")
    paths = folder / "classifier", folder / "gan"
    gan = [
        "--config.model.conditional=false",
        *(f"--config.model.{name}.width=8" for name in ("generator", "discriminator")),
    ]
    commands = [train_arguments(CLASSIFIER, paths[0]), train_arguments(GAN, paths[1], *gan)]
    for answer in run_many([("train", arguments) for arguments in commands]):
        assert answer.status == 0, answer
    return paths
