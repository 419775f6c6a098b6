"""Strict settings for every test: no silent promotion of ranks or dtypes, and compiled programs kept between tests."""

import os
import pathlib
from importlib.metadata import version

import jax
import pytest

from tests import hurry

hurry.begin()

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(REPOSITORY / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# Files of a few long tests, in the order of their time. With two workers, one of these at the end leaves one idle.
LONG_FILES = (
    "tests/test_devices.py",
    "tests/experiments/vae/test_command.py",
    "tests/test_chunks.py",
    "tests/test_transforms.py",
    "tests/gradients/test_paired_draws.py",
    "tests/experiments/vae/test_kills.py",
    "tests/test_batched.py",
    "tests/proposals/test_mixture.py",
    "docs/recipes.md",
    "docs/guide.md",
    "tests/benchmarks/accelerator/test_accelerator.py",
    "tests/benchmarks/gradient_quality/test_gradient_quality.py",
    "tests/experiments/toy/test_toy.py",
)


def pytest_configure(config):
    """Let XLA compile faster: in its older way, in one piece, and without evaluating constants.

    Tests of costs are marked `optimized` and run apart, since fewer arrays are fused in this way. The flags belong to
    one version, and an unknown flag is an error.
    """
    in_a_hurry = os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS") and config.option.markexpr == "not optimized"
    if in_a_hurry and version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = " ".join(
            [
                os.environ.get("XLA_FLAGS", ""),
                "--xla_cpu_use_fusion_emitters=false",
                "--xla_cpu_parallel_codegen_split_count=1",
                "--xla_disable_hlo_passes=constant_folding",
            ]
        )


def pytest_collection_modifyitems(items):
    """Long files first; all else stays as it is."""
    ranks = {REPOSITORY / name: rank for rank, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def pytest_runtest_teardown(item, nextitem):
    """Free what a file of tests has left."""
    if nextitem is None or nextitem.path != item.path:
        hurry.clean_up()


@pytest.fixture
def raw_data_dir() -> pathlib.Path:
    """The folder of the benchmark files, named by HIWAE_DATA_DIR; tests on real data skip without it."""
    folder = os.environ.get("HIWAE_DATA_DIR")
    if not folder:
        pytest.skip("HIWAE_DATA_DIR is not set: it names the folder that holds the benchmark files (docs/data.md)")
    return pathlib.Path(folder)


@pytest.fixture
def double_precision():
    """Float64 for one test."""
    with jax.enable_x64(True):
        yield
