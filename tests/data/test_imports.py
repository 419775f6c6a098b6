"""What is imported, and when; each in a process of its own."""

import os
import pathlib
import subprocess
import sys

HEAVY = ("flax", "sklearn", "tensorflow", "tensorflow_datasets")
EXTRA = ("tensorflow_datasets", "array_record", "importlib_resources", "sklearn")  # what the extra "data" brings
WITHOUT_THE_EXTRA = """
import importlib, pkgutil
import hiwae_jax
for module in pkgutil.walk_packages(hiwae_jax.__path__, "hiwae_jax."):
    if "builder" not in module.name:
        importlib.import_module(module.name)
for name in hiwae_jax.data.dataset_names():
    try:
        hiwae_jax.data.load_dataset(name, data_dir="/nonexistent")
    except ImportError as error:
        assert 'pip install "hiwae_jax[data]"' in str(error), error
    else:
        raise AssertionError(name)
"""


def heavy_imports(code: str, tmp_path: pathlib.Path) -> list[str]:
    # A tensorflow that can be found: where none is, that none was imported would prove nothing.
    stub = tmp_path / "stub" / "tensorflow"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("raise RuntimeError('tensorflow was imported')")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\n{code}\nprint('\\n', *[m for m in {HEAVY} if m in sys.modules])",
        ],
        env={**os.environ, "PYTHONPATH": str(stub.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_importing_the_package_imports_no_heavy_library(tmp_path):
    assert heavy_imports("import hiwae_jax.data", tmp_path) == []


def test_preparing_imports_no_tensorflow_and_loading_again_nothing(tiny_set, tmp_path):
    tiny_set.write(compressed=True)
    code = f"{tiny_set.in_python}\nload()"
    assert heavy_imports(code, tmp_path / "first") == ["tensorflow_datasets"]
    assert heavy_imports(code, tmp_path / "second") == []


def test_without_the_extra_data_all_is_imported_and_what_is_prepared_is_read(tiny_set, tmp_path):
    tiny_set.write()
    tiny_set.load()
    blocked = f"sys.modules |= dict.fromkeys({EXTRA})\n"
    heavy_imports(f"{blocked}{WITHOUT_THE_EXTRA}{tiny_set.in_python}\nload()", tmp_path)
