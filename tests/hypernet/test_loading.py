import dataclasses
import errno
import functools
import http.server
import pathlib
import threading
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from small_graphs import TINY, mixed_graph, random_graph

from ghn_jax.fields import COUNT
from ghn_jax.graphs.param_spec import KeptParam
from ghn_jax.hypernet import (
    GHN,
    api,
    embed,
    export_release_checkpoint,
    init_ghn,
    load_ghn,
    predict,
    save_file,
    training_range,
)
from ghn_jax.hypernet.checkpoints import loading
from ghn_jax.hypernet.checkpoints.own import PretrainedGHN
from ghn_jax.hypernet.programs import embed_program


@pytest.fixture(scope="module")
def pretrained() -> PretrainedGHN:
    ghn = GHN(TINY)
    return PretrainedGHN(ghn, init_ghn(ghn, jax.random.key(0)))


class CountingHandler(http.server.SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012

    def log_message(self, format: str, *args: object) -> None:
        self.requests.append(self.path)


@pytest.fixture
def served(tmp_path: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    """A folder and the address at which it is served on loopback."""
    folder = tmp_path / "served"
    folder.mkdir()
    CountingHandler.requests.clear()
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(CountingHandler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("GHN_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_public_file_is_downloaded_once_and_verified(
    served: tuple[pathlib.Path, str],
    cache: pathlib.Path,
    pretrained: PretrainedGHN,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, url = served
    export_release_checkpoint(folder / "ghn2_cifar10.pt", TINY, pretrained.variables)
    data = (folder / "ghn2_cifar10.pt").read_bytes()
    monkeypatch.setitem(loading.RELEASE_FILES, "ghn2_cifar10", loading.git_blob_id(data))
    for _ in range(2):
        loaded = load_ghn("ppuda:ghn2_cifar10", url)
        assert loaded.config == TINY
        jax.tree.map(np.testing.assert_array_equal, loaded.variables, pretrained.variables)
    assert CountingHandler.requests == ["/ghn2_cifar10.pt"]
    assert [path.name for path in cache.iterdir()] == ["ghn2_cifar10.pt"]
    for damaged in (data + b"x", data[:-1], b""):
        (cache / "ghn2_cifar10.pt").write_bytes(damaged)
        load_ghn("ppuda:ghn2_cifar10", url)
        assert (cache / "ghn2_cifar10.pt").read_bytes() == data
    assert CountingHandler.requests == 4 * ["/ghn2_cifar10.pt"]
    (cache / "ghn2_cifar10.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot be downloaded .*download it yourself to .*ghn2_cifar10\.pt"):
        load_ghn("ppuda:ghn2_cifar10", f"{url}/nowhere")


def test_a_public_file_that_cannot_be_kept_is_used(
    served: tuple[pathlib.Path, str],
    cache: pathlib.Path,
    pretrained: PretrainedGHN,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder, url = served
    export_release_checkpoint(folder / "ghn2_cifar10.pt", TINY, pretrained.variables)
    data = (folder / "ghn2_cifar10.pt").read_bytes()
    monkeypatch.setitem(loading.RELEASE_FILES, "ghn2_cifar10", loading.git_blob_id(data))
    cache.write_text("a file where the folder should be")
    assert loading.release_bytes("ghn2_cifar10", url)[1] == data
    assert "cannot be kept" in caplog.text
    assert load_ghn("ppuda:ghn2_cifar10", url).config == TINY
    cache.unlink()
    caplog.clear()

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", lambda path, data: full(path))
    assert load_ghn("ppuda:ghn2_cifar10", url).config == TINY
    assert "No space left on device" in caplog.text
    assert not list(cache.iterdir())


def test_wrong_bytes_are_refused_and_not_kept(served: tuple[pathlib.Path, str], cache: pathlib.Path) -> None:
    folder, url = served
    (folder / "ghn1_cifar10.pt").write_bytes(b"not the file")
    with pytest.raises(ValueError, match=r"ghn1_cifar10.pt has git blob id .* instead of 0c97a283"):
        load_ghn("ppuda:ghn1_cifar10", url)
    assert not cache.exists()
    with pytest.raises(ValueError, match=r"mlp_cifar10.pt cannot be downloaded .*404"):
        load_ghn("ppuda:mlp_cifar10", url)
    assert not cache.exists()


def test_git_blob_id() -> None:
    assert loading.git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert loading.git_blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no hypernetwork 'nothing'.*packaged: .*public: ppuda:ghn1_cifar10"):
        load_ghn("nothing")
    for name in ("x" * 5_000, "a\0b", "\ud800"):
        with pytest.raises(ValueError, match="no hypernetwork '"):
            load_ghn(name)
    with pytest.raises(ValueError, match=r"no checkpoint 'ghn3'; known: ghn1_cifar10"):
        load_ghn("ppuda:ghn3")


def test_packaged_names(tmp_path: pathlib.Path, pretrained: PretrainedGHN, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "packaged").mkdir()
    save_file(tmp_path / "packaged" / "small.npz", TINY, pretrained.variables)
    monkeypatch.setattr(loading.importlib.resources, "files", lambda package: tmp_path)
    assert loading.packaged_names() == ("small",)
    assert load_ghn("small").config == TINY
    with pytest.raises(ValueError, match="packaged: small;"):
        load_ghn("big")


def test_predict(pretrained: PretrainedGHN, tmp_path: pathlib.Path) -> None:
    graph = mixed_graph()
    result = predict(graph, pretrained, with_embeddings=True)
    assert result["embeddings"].shape == (graph.num_nodes, TINY.hid)
    assert result["params"]["stem"]["kernel"].shape == (3, 3, 3, 6)
    assert set(result["params"]["head"]) == {"kernel", "bias"}
    other = predict(graph, pretrained, classifier=False, dtype="bfloat16")
    assert set(other) == {"params"}
    assert "head" not in other["params"]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(other)} == {"bfloat16"}
    save_file(tmp_path / "ghn.npz", TINY, pretrained.variables)
    from_file = predict(graph, str(tmp_path / "ghn.npz"))
    jax.tree.map(np.testing.assert_array_equal, from_file["params"], result["params"])


def test_predict_uses_the_default(pretrained: PretrainedGHN, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "load_ghn", lambda name: {loading.DEFAULT_GHN: pretrained}[name])
    api.default_ghn.cache_clear()
    graph = mixed_graph()
    jax.tree.map(np.testing.assert_array_equal, predict(graph), predict(graph, pretrained))
    api.default_ghn.cache_clear()


def test_the_packaged_hypernetwork_says_once_what_it_was_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_range, "_told", set())
    graph = mixed_graph("six channels", classes=10)
    with pytest.warns(UserWarning, match=r"8 x 8 digits.*'six channels' is outside .*: 11 pixels of kernel \(trained"):
        predict(graph)
    predict(mixed_graph("wide", width=90, classes=10))  # nothing more: a warning would be an error
    embed([graph])
    loaded = load_ghn("default")
    assert loaded.trained_on is not None
    monkeypatch.setattr(training_range, "_told", set())
    with pytest.warns(UserWarning, match="For other images, classes or larger architectures its parameters"):
        embed([random_graph(0, 20)], loaded)
    departures = loaded.trained_on.departures(mixed_graph("wide", width=90, classes=7))
    assert [words.partition(" (")[0] for words in departures] == ["110 channels", "11 pixels of kernel", "7 classes"]
    assert loaded.trained_on.departures(random_graph(0, 181)) == ["181 nodes (trained up to 180)"]


def test_a_damaged_training_range_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "default.json"
    assert training_range.read_training_range(path) is None
    for text, message in (("{", "no description"), ('{"num_classes": "10"}', "lacks"), ("[]", "must be an object")):
        path.write_text(text)
        with pytest.raises(ValueError, match=f"default.json.* {message}"):
            training_range.read_training_range(path)


def test_parameters_that_are_not_predicted_are_an_error_unless_allowed(pretrained: PretrainedGHN) -> None:
    whole = mixed_graph()
    kept = tuple(KeptParam((f"block_{place}", "gamma"), (6,), "multiplies data") for place in range(5))
    graph = dataclasses.replace(whole, kept=kept)
    with pytest.raises(ValueError, match=r"'block_0/gamma' \(multiplies data\), .* and 2 more; init_like keeps"):
        predict(graph, pretrained)
    partial = predict(graph, pretrained, allow_missing=True)
    jax.tree.map(np.testing.assert_array_equal, partial, predict(whole, pretrained))


@pytest.mark.parametrize("at_once", [0, -1])
def test_embed_needs_at_least_one_graph_at_once(at_once: int, pretrained: PretrainedGHN) -> None:
    with pytest.raises(ValueError, match=f"at_once must be {COUNT}, got {at_once}"):
        embed([random_graph(0, 5)], pretrained, at_once=at_once)


def test_embed_is_the_mean_of_node_states(pretrained: PretrainedGHN) -> None:
    graphs = [random_graph(seed, size) for seed, size in enumerate((30, 5, 12))]
    embeddings = embed(graphs, pretrained, at_once=2)
    assert embeddings.shape == (3, TINY.hid)
    for graph, embedding in zip(graphs, embeddings, strict=True):
        states = predict(graph, pretrained, with_embeddings=True)["embeddings"]
        np.testing.assert_allclose(embedding, np.asarray(states).mean(0), atol=1e-5)
    assert embed([], pretrained).shape == (0, TINY.hid)
    assert embed_program(pretrained.ghn) is embed_program(GHN(TINY))
