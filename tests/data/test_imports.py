"""What is imported, and when; each in a process of its own."""

import os
import pathlib
import subprocess
import sys

HEAVY = ("flax", "sklearn", "tensorflow", "tensorflow_datasets")


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
