"""`fetch` against a server on this machine: whole files or none, checksums, no second download."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from robustode.data import fetch
from robustode.data.public import CIFAR10, MNIST
from robustode.errors import DataError


@pytest.fixture
def server(monkeypatch):
    """A server of the files in `files`; what it was asked for is in `asked`, from which byte in `begun`.

    It goes on from a byte where `ranges`, and hangs up after `cut` bytes of a file.
    """
    files: dict[str, bytes] = {}
    asked: list[str] = []
    begun: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2]
            asked.append(name)
            content = files.get(name)
            if content is None:
                self.send_error(404)
                return
            start = int(re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])  # type: ignore[index]
            begun.append(start)
            if start >= len(content) and http.ranges:  # type: ignore[attr-defined]
                self.send_error(416)
                return
            start = start if http.ranges else 0  # type: ignore[attr-defined]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : http.cut])  # type: ignore[attr-defined]

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    http.begun, http.ranges, http.cut = begun, True, None  # type: ignore[attr-defined]
    http.files, http.asked, http.url = files, asked, f"http://127.0.0.1:{http.server_port}/mirror"  # type: ignore[attr-defined]
    yield http
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def mnist(server, monkeypatch):
    for k, name in enumerate(MNIST.files):
        server.files[name] = gzip.compress(bytes([k]) * 1000 * (k + 1))
        monkeypatch.setitem(MNIST.files, name, hashlib.md5(server.files[name]).hexdigest())
    return server


def test_fetches_into_torchvisions_layout_and_only_once(mnist, tmp_path):
    steps = []
    paths = fetch("mnist", tmp_path / "new", url=mnist.url, progress=lambda *step: steps.append(step))
    assert [path.name for path in paths] == list(MNIST.files)
    for path in paths:
        assert path.parent == tmp_path / "new/MNIST/raw"
        assert path.read_bytes() == mnist.files[path.name]
        assert (path.name, len(mnist.files[path.name]), len(mnist.files[path.name])) in steps
    assert len(mnist.asked) == 4
    paths[2].write_bytes(b"damaged")
    fetch("mnist14", tmp_path / "new", url=mnist.url)
    assert mnist.asked[4:] == [paths[2].name]
    assert paths[2].read_bytes() == mnist.files[paths[2].name]


def test_wrong_bytes_are_not_kept(mnist, tmp_path):
    name = next(iter(MNIST.files))
    mnist.files[name] = b"another file"
    with pytest.raises(DataError) as caught:
        fetch("mnist", tmp_path, url=mnist.url)
    assert str(caught.value) == (
        f"download of {mnist.url}/{name}: expected the published bytes, md5 {MNIST.files[name]}, "
        f"got md5 {hashlib.md5(b'another file').hexdigest()}. Try again."
    )
    assert not (tmp_path / "MNIST").exists()


@pytest.mark.parametrize("ranges", [True, False])
def test_goes_on_where_it_was_cut_off(mnist, tmp_path, ranges):
    name, content = next(iter(mnist.files.items()))
    part, mnist.ranges, mnist.cut = tmp_path / f"MNIST/raw/{name}.part", ranges, 20
    message = f"download of {mnist.url}/{name}: got no file: the connection ended early. Try again"
    with pytest.raises(DataError, match=re.escape(message)):
        fetch("mnist", tmp_path, url=mnist.url)
    assert part.read_bytes() == content[:20]
    assert not part.with_suffix("").exists()
    mnist.cut = None
    steps = []
    paths = fetch("mnist", tmp_path, url=mnist.url, progress=lambda *step: steps.append(step))
    assert mnist.begun == [0, 20, 0, 0, 0]
    assert steps[0] == (name, len(content), len(content))
    assert [path.read_bytes() for path in paths] == list(mnist.files.values())
    assert sorted(file.name for file in part.parent.iterdir()) == sorted(MNIST.files)


@pytest.mark.parametrize("stale", [b"another file begins so", b"x" * 5000])
def test_a_part_of_another_file_is_given_up(mnist, tmp_path, stale):
    """Shorter than the file, and longer: the server then has no more to give (416)."""
    name, content = next(iter(mnist.files.items()))
    part = tmp_path / f"MNIST/raw/{name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(stale)
    fetch("mnist", tmp_path, url=mnist.url)
    assert part.with_suffix("").read_bytes() == content
    assert not part.exists()
    assert mnist.begun[:2] == [len(stale), 0]


def test_a_whole_part_is_taken_without_another_download(mnist, tmp_path):
    name, content = next(iter(mnist.files.items()))
    part = tmp_path / f"MNIST/raw/{name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(content)
    fetch("mnist", tmp_path, url=mnist.url)
    assert name not in mnist.asked
    assert part.with_suffix("").read_bytes() == content


def test_absent_file_and_no_server(mnist, tmp_path):
    last = list(MNIST.files)[-1]
    del mnist.files[last]
    with pytest.raises(DataError, match=re.escape(f"download of {mnist.url}/{last}: got no file: HTTP Error 404")):
        fetch("mnist", tmp_path, url=mnist.url)
    assert len(list((tmp_path / "MNIST/raw").iterdir())) == 3
    with pytest.raises(DataError, match=r"got no file: .*refused.*\. Try again, or copy the files there by"):
        fetch("mnist", tmp_path, url="http://127.0.0.1:1/")
    with pytest.raises(DataError, match="expected http:// or https://, got 'mirror/"):
        fetch("mnist", tmp_path, url="mirror")


@pytest.fixture
def cifar(server, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as bundle:
        for name in [*CIFAR10.files, "../../escape"]:
            content = name.encode() * 50
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
            if name in CIFAR10.files:
                monkeypatch.setitem(CIFAR10.files, name, hashlib.md5(content).hexdigest())
    server.files["cifar-10-python.tar.gz"] = packed.getvalue()
    digest = hashlib.md5(packed.getvalue()).hexdigest()
    monkeypatch.setitem(vars(CIFAR10), "archive", ("cifar-10-python.tar.gz", digest))
    return server


def test_archive_gives_the_known_files_and_is_deleted(cifar, tmp_path):
    fetch("cifar10", tmp_path / "root", url=cifar.url)
    folder = tmp_path / "root/cifar-10-batches-py"
    assert sorted(file.name for file in folder.iterdir()) == sorted(CIFAR10.files)
    assert (folder / "test_batch").read_bytes() == b"test_batch" * 50
    assert not (tmp_path / "escape").exists()
    fetch("cifar10", tmp_path / "root", url=cifar.url)
    assert cifar.asked == ["cifar-10-python.tar.gz"]


def test_archive_with_a_member_missing(cifar, tmp_path, monkeypatch):
    monkeypatch.setitem(CIFAR10.files, "data_batch_6", "0" * 32)
    with pytest.raises(DataError, match=r"expected the files of cifar10, got .*data_batch_6"):
        fetch("cifar10", tmp_path, url=cifar.url)
    left = sorted(file.name for file in (tmp_path / "cifar-10-batches-py").iterdir())
    assert left == sorted(set(CIFAR10.files) - {"data_batch_6"})


def test_names(tmp_path):
    with pytest.raises(DataError, match="data set 'digits': got nothing to fetch: it is part of the package"):
        fetch("digits", tmp_path)
    with pytest.raises(DataError, match=r"unknown data set to fetch: .* got 'mnits'. Did you mean 'mnist'?"):
        fetch("mnits", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="got an error on writing"):
        fetch("mnist", tmp_path / "file")


def test_a_failed_download_leaves_no_folder(tmp_path):
    with pytest.raises(DataError):
        fetch("mnist", tmp_path / "new", url="http://127.0.0.1:9/nothing/", timeout=2.0)
    assert not (tmp_path / "new").exists()
