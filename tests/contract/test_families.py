"""The contract of a family, on every family and network there is."""

from __future__ import annotations

import pytest

from genjax.families import FAMILIES
from tests import fakes
from tests.contract import checks
from tests.contract.checks import bench_of

NAMES = list(fakes.FAKES)
GANS = [name for name in NAMES if fakes.FAKES[name].model["family"] == "gan"]


def discriminator_updates(name: str) -> int:
    return fakes.FAKES[name].model.get("discriminator_updates", 1)


def loops(name: str) -> tuple:
    """What decides the shape of the compiled loops around a step."""
    return fakes.FAKES[name].model["family"], discriminator_updates(name), fakes.FAKES[name].accumulation


LOOPS = list({loops(name): name for name in reversed(NAMES)}.values())  # one for every shape


def test_every_family_and_every_network_has_a_fake():
    known = {
        (family, part, name)
        for family, entry in FAMILIES.items()
        for part in entry.networks
        for name in entry.networks[part]
    }
    models = [fake.model for fake in fakes.FAKES.values()]
    faked = {
        (model["family"], part, model[part]["name"]) for model in models for part in FAMILIES[model["family"]].networks
    }
    assert faked == known


@pytest.mark.parametrize("name", NAMES)
class TestFamily:
    def test_a_step_keeps_structure_shapes_and_dtypes(self, name):
        checks.check_structure(bench_of(name))

    def test_all_that_is_trained_moves_and_stays_finite(self, name):
        checks.check_moves(bench_of(name), fakes.FAKES[name].still)

    def test_the_key_decides_the_noise(self, name):
        checks.check_noise(bench_of(name), fakes.FAKES[name].noisy)

    def test_evaluation_does_not_see_its_padding(self, name):
        checks.check_padding(bench_of(name))

    def test_every_hparam_acts_without_compiling_again(self, name):
        checks.check_hparams(bench_of(name))

    def test_updates_are_counted_exactly(self, name):
        checks.check_update_counts(bench_of(name), discriminator_updates(name))

    def test_a_sample_depends_on_its_own_key_and_label_alone(self, name):
        if bench_of(name).family.name == "classifier":
            assert bench_of(name).family.sample is None
        else:
            checks.check_samples(bench_of(name))


@pytest.mark.parametrize("name", LOOPS)
class TestLoops:
    def test_calls_and_a_scan_give_the_same_bits(self, name):
        checks.check_scan(bench_of(name))

    def test_stopping_and_restoring_changes_no_bit(self, name, tmp_path):
        checks.check_restore(bench_of(name), tmp_path)

    def test_a_population_is_its_members(self, name):
        checks.check_population(bench_of(name))


@pytest.mark.parametrize("name", [name for name in GANS if discriminator_updates(name) == 1])
def test_a_player_s_update_leaves_the_other_alone(name):
    checks.check_players(bench_of(name))


@pytest.mark.parametrize("name", ["classifier-cnn", "gan-two-discriminator-updates", "vae-bernoulli"])
def test_streaming_gives_the_bits_of_data_on_the_device(name):
    checks.check_stream(bench_of(name))


@pytest.mark.parametrize("quiet", [checks.quiet_classifier, checks.quiet_gan])
def test_slices_make_the_step_of_the_whole_batch(quiet):
    checks.check_accumulation(quiet(1), quiet(2))
