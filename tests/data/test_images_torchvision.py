"""Sets that torchvision reads and fetches: small archives of our own, served on loopback."""

from __future__ import annotations

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import logging
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision

from shiftlens.data import torchvision_sets
from shiftlens.data.images import load_images
from shiftlens.errors import InputError

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_BATCH = 20
FOLDER = "cifar-10-batches-py"


def batches() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for name in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"]:
        data = rng.integers(0, 256, (PER_BATCH, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": data, "labels": [k % 10 for k in range(PER_BATCH)]})
    files["batches.meta"] = pickle.dumps({"label_names": NAMES})
    return files


def md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        self.server.requests.append(self.path)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    monkeypatch.setenv("no_proxy", "*")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        httpd.requests = []
        httpd.daemon_threads = False  # closing waits for the answers that are still being sent
        thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
        thread.start()
        yield httpd
        httpd.shutdown()
        thread.join()


@pytest.fixture
def cifar(server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """torchvision's CIFAR-10 with our files: its own reader, its own checks, its own download."""
    files = batches()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (tmp_path / "served" / "cifar.tar.gz").write_bytes(archive.getvalue())
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "url", f"http://127.0.0.1:{server.server_address[1]}/cifar.tar.gz")
    monkeypatch.setattr(kind, "tgz_md5", md5(archive.getvalue()))
    monkeypatch.setattr(kind, "train_list", [[n, md5(d)] for n, d in files.items() if n.startswith("data")])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(
        kind, "meta", {"filename": "batches.meta", "key": "label_names", "md5": md5(files["batches.meta"])}
    )
    monkeypatch.delenv("SHIFTLENS_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.platform", "linux")
    return files


def lay_out(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def test_cifar10_is_fetched_once_and_said(
    cifar: dict[str, bytes], server: http.server.HTTPServer, tmp_path: Path
) -> None:
    said: list[str] = []
    images = load_images("cifar10", say=said.append, data_root=tmp_path / "data")
    expected = pickle.loads(cifar["test_batch"])["data"].reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(images.batch(slice(None)), expected)
    assert images.class_names == tuple(NAMES)
    assert (images.name, images.size, images.natural_flip) == ("cifar10", (32, 32), True)
    assert len(said) == 1
    assert str(tmp_path / "cache" / "shiftlens" / "cifar10") in said[0]
    assert str(tmp_path / "data") in said[0]
    n_requests = len(server.requests)
    assert n_requests > 0
    train = load_images("cifar10", split="train", say=said.append)
    assert len(train) == 5 * PER_BATCH
    assert load_images("torchvision:CIFAR10").digest == images.digest
    both = load_images("cifar10", split="all")
    assert (len(both), both.n_source) == (6 * PER_BATCH, 6 * PER_BATCH)
    assert both.batch([-1]).tolist() == images.batch([-1]).tolist()
    assert both.batch([0]).tolist() == train.batch([0]).tolist()
    assert images.part("test") is None
    assert (len(said), len(server.requests)) == (1, n_requests)


def test_a_download_is_logged_without_a_listener(cifar: dict[str, bytes], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load_images("cifar10")
    assert [record.message for record in caplog.records if "downloading CIFAR10" in record.message]


def test_cifar10_in_torchvisions_layout_is_found_first(
    cifar: dict[str, bytes], server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(tmp_path / "data" / "cifar10" / FOLDER, cifar)
    assert len(load_images("cifar10", data_root=tmp_path / "data")) == PER_BATCH
    monkeypatch.setenv("SHIFTLENS_DATA", str(tmp_path / "data"))
    assert len(load_images("cifar10", split="train")) == 5 * PER_BATCH
    assert len(load_images("torchvision:CIFAR10")) == PER_BATCH
    assert server.requests == []


def test_a_pickle_with_another_checksum_is_never_opened(cifar: dict[str, bytes], tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "pwned",))

    lay_out(tmp_path / "data" / "cifar10" / FOLDER, cifar | {"test_batch": pickle.dumps(Bomb())})
    with pytest.raises(InputError, match="incomplete or not the published ones and were not read"):
        load_images("cifar10", data_root=tmp_path / "data")
    assert not (tmp_path / "pwned").exists()


def test_a_failed_download_is_one_line(
    cifar: dict[str, bytes], server: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served" / "cifar.tar.gz").unlink()
    with pytest.raises(
        InputError, match=r"CIFAR10 was not found in .*--data-root.*downloading it into .* failed"
    ) as caught:
        load_images("cifar10", say=lambda text: None)
    assert "\n" not in str(caught.value)
    (tmp_path / "served" / "cifar.tar.gz").write_bytes(b"another file")
    with pytest.raises(InputError, match="failed: File not found or corrupted"):
        load_images("cifar10", say=lambda text: None)


def test_fashion_mnist_in_torchvisions_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIFTLENS_DATA", str(tmp_path))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">HBBIII", 0, 8, 3, *pixels.shape) + pixels.tobytes())
    (raw / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, 6) + bytes([0, 1, 2, 9, 1, 0]))
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (raw / name).write_bytes(b"")
    for stray in raw.iterdir():
        with gzip.open(f"{stray}.gz", "wb") as out:
            out.write(stray.read_bytes())
    images = load_images("torchvision:FashionMNIST")
    assert (images.n_channels, images.size, images.natural_flip) == (1, (28, 28), True)
    np.testing.assert_array_equal(images.batch(slice(None))[:, 0], pixels)
    assert images.class_names[9] == "Ankle boot"


def test_usps_has_no_names_and_no_natural_flip(tmp_path: Path) -> None:
    rows = b"".join(b"%d " % label + b" ".join(b"%d:-1" % (k + 1) for k in range(256)) + b" \n" for label in (1, 10))
    (tmp_path / "usps").mkdir()
    (tmp_path / "usps" / "usps.t.bz2").write_bytes(bz2.compress(rows))
    images = load_images("torchvision:USPS", data_root=tmp_path)
    assert images.labels.tolist() == [0, 9]
    assert len(images.class_names) == 10
    assert not images.natural_flip
    assert not images.batch([0, 1]).any()


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [("linux", "XDG_CACHE_HOME", "shiftlens"), ("win32", "LOCALAPPDATA", "shiftlens")],
)
def test_the_cache_is_the_platforms(
    platform: str, variable: str, tail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, str(tmp_path))
    assert torchvision_sets.cache_folder() == tmp_path / tail


def test_the_cache_without_any_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("sys.platform", "darwin")
    assert torchvision_sets.cache_folder() == tmp_path / "Library" / "Caches" / "shiftlens"
    monkeypatch.setattr("sys.platform", "linux")
    assert torchvision_sets.cache_folder() == tmp_path / ".cache" / "shiftlens"
