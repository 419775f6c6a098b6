"""Files that are not there: what is said of them, and downloads known by their content."""

import gzip
import hashlib
import shutil

import pytest
import tensorflow_datasets as tfds

from hiwae_jax.data import mnist, omniglot
from hiwae_jax.data.mnist.builder import HiwaeMnist
from hiwae_jax.data.omniglot.builder import HiwaeOmniglot
from tests.data.published_sets.tiny_sets import CALTECH, MNIST, OMNIGLOT, REBUILT, assert_is
from tests.data.tiny_files import NOWHERE, serve


def test_missing_files_say_what_is_known_of_them(install):
    for described, message in (
        (MNIST, rf"train-images-idx3-ubyte or .*\.gz  \(7,856 bytes uncompressed, from {NOWHERE}/"),
        (OMNIGLOT, rf"chardata.mat or chardata.mat.gz  \(md5 \w{{32}} uncompressed, from {NOWHERE}/"),
        (CALTECH, rf"caltech101_silhouettes_28_split1.mat or .*\.gz  \(.* uncompressed, from {NOWHERE}/"),
        (REBUILT, r"\(chardata_rebuilt.mat has no address\).*bytes uncompressed, to be had from no address"),
    ):
        with pytest.raises(FileNotFoundError, match=f"(?s){message}"):
            install(described).load()


def test_compressed_downloads(install, tmp_path, monkeypatch):
    installed = install(MNIST)
    with serve(tmp_path / "served") as (folder, address):
        files, infos = {}, {}
        for part, raw in installed.specification.files.items():
            download = gzip.compress(installed.contents[raw.filename])
            (folder / f"{raw.filename}.gz").write_bytes(download)
            sha256 = hashlib.sha256(download).hexdigest()
            files[part] = raw._replace(url=f"{address}/{raw.filename}.gz", download_sha256=sha256)
            infos[files[part].url] = tfds.download.checksums.UrlInfo(len(download), sha256, f"{raw.filename}.gz")
        specification = installed.specification._replace(files=files)
        monkeypatch.setattr(mnist, "SPECIFICATION", specification)
        monkeypatch.setattr(HiwaeMnist, "SPECIFICATION", specification)
        monkeypatch.setattr(HiwaeMnist, "url_infos", infos)
        assert_is(installed.load(), installed)
    # What was downloaded is found again, off line as well.
    shutil.rmtree(installed.data_dir / "hiwae_mnist")
    shutil.rmtree(installed.data_dir / "hiwae_jax_packed")
    assert_is(installed.load(), installed)


@pytest.mark.parametrize("good", [True, False], ids=["the file", "another"])
def test_a_download_known_by_its_md5(good, install, tmp_path, monkeypatch):
    installed = install(OMNIGLOT)
    with serve(tmp_path / "served") as (folder, address):
        content = installed.contents["chardata.mat"] if good else b"<html>moved</html>"
        (folder / "chardata.mat").write_bytes(content)
        raw = installed.specification.files["all"]._replace(url=f"{address}/chardata.mat")
        specification = installed.specification._replace(files={"all": raw})
        monkeypatch.setattr(omniglot, "SPECIFICATION", specification)
        monkeypatch.setattr(HiwaeOmniglot, "SPECIFICATION", specification)
        if good:
            assert_is(installed.load(), installed)
        else:
            with pytest.raises(ValueError, match=r"wrong checksum: md5 .* starts with b'<html>moved"):
                installed.load()
