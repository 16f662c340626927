"""Folders that can be shared, and names of the Hugging Face Hub, against a server on this machine."""

import hashlib
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from parity_data import checkpoint, needs_parity
from small_graphs import TINY, mixed_graph

from ghn_jax.hypernet import GHN, GHNConfig, embed, init_ghn, load_ghn, predict, save_pretrained
from ghn_jax.hypernet.checkpoints import hub
from ghn_jax.hypernet.decoders.centred import CentredDecoderConfig
from ghn_jax.hypernet.decoders.low_rank import LowRankDecoderConfig
from ghn_jax.hypernet.encoders.graphormer import GraphormerConfig

pytest.importorskip("safetensors")

GHN3 = TINY.replace(encoder=GraphormerConfig(layers=1, heads=2), decoder=CentredDecoderConfig())
FAMILIES = {
    "ghn2": TINY,
    "ghn3": GHN3,
    "low rank": TINY.replace(decoder=LowRankDecoderConfig(rank=2, width=400)),
}


def variables_of(config: GHNConfig) -> Any:
    """Weights of the right shapes, without compiling anything."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_ghn(GHN(config), jax.random.key(0)))
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_gives_the_hypernetwork_back(family: str, tmp_path: pathlib.Path) -> None:
    config, variables = FAMILIES[family], variables_of(FAMILIES[family])
    save_pretrained(tmp_path / "ghn", config, variables, description="Trained on **nothing**.")
    assert {path.name for path in (tmp_path / "ghn").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    loaded = load_ghn(tmp_path / "ghn")
    assert loaded.config == config
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    card = (tmp_path / "ghn" / "README.md").read_text()
    weights = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert card.startswith("---\nlibrary_name: ghn_jax\n")
    assert f"Graph hypernetwork of {weights:,} weights" in card
    assert "Trained on **nothing**." in card


def test_damaged_and_incomplete_folders_are_named(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "ghn"
    save_pretrained(folder, GHN3, variables_of(GHN3))
    weights = (folder / "model.safetensors").read_bytes()
    config = json.loads((folder / "config.json").read_text())

    def message() -> str:
        with pytest.raises(ValueError, match=str(folder)) as caught:
            load_ghn(folder)
        return str(caught.value)

    (folder / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    assert "is damaged: its digest" in message()
    (folder / "model.safetensors").write_bytes(weights[:-5])
    assert "damaged or no file of safetensors" in message()
    (folder / "model.safetensors").write_bytes(weights)
    other = tmp_path / "other"
    save_pretrained(other, GHN3.replace(hid=16), variables_of(GHN3.replace(hid=16)))
    (folder / "config.json").write_text((other / "config.json").read_text())
    assert "does not match its weights" in message()
    (folder / "config.json").write_text(json.dumps({**config, "config": {}}))
    assert "configuration is damaged" in message()
    (folder / "config.json").unlink()
    assert "config.json is missing" in message()


class _Hub(http.server.BaseHTTPRequestHandler):
    """Answers as huggingface.co does for files of the folder `root`, at OWNER/REPOSITORY/resolve/main/FILE."""

    root: pathlib.Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.root / self.path.lstrip("/").replace("/resolve/main/", "/")
        found = path.is_file() and "/resolve/main/" in self.path
        data = path.read_bytes() if found else b"Entry not found"
        self.send_response(200 if found else 404)
        if not found:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def served(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, pathlib.Path]]:
    """Address and folder of a hub that is used in place of the public one; what is downloaded goes with the test."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    root = tmp_path / "hub"
    root.mkdir()
    handler = type("Handler", (_Hub,), {"root": root})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", root
        server.shutdown()
        thread.join()


def test_a_repository_is_loaded_and_kept(served: tuple[str, pathlib.Path]) -> None:
    url, root = served
    variables = variables_of(GHN3)
    save_pretrained(root / "someone" / "ghn", GHN3, variables)
    loaded = load_ghn("hf:someone/ghn", url)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, variables)
    again = load_ghn("hf:someone/ghn", "http://127.0.0.1:9")  # nobody listens there: it comes from the cache
    assert again.config == GHN3


@needs_parity
def test_a_published_file_is_loaded_and_its_sum_is_checked(
    served: tuple[str, pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, root = served
    data = checkpoint("ghn3_hub_tiny").read_bytes()
    (root / "SamsungSAILMontreal" / "ghn3").mkdir(parents=True)
    for name in ("ghn3tm8.pt", "ghn3sm8.pt"):
        (root / "SamsungSAILMontreal" / "ghn3" / name).write_bytes(data)
    loaded = load_ghn("hf:SamsungSAILMontreal/ghn3/ghn3tm8.pt", url)
    assert loaded.config.encoder == GraphormerConfig(layers=2, heads=8)
    with pytest.raises(
        ValueError, match=r"ghn3sm8.pt: 1568793 bytes with SHA-256 .* instead of 143269744 .* delete it"
    ):
        load_ghn("hf:SamsungSAILMontreal/ghn3/ghn3sm8.pt", url)
    known = hub.PublishedFile(len(data), hashlib.sha256(data).hexdigest())
    monkeypatch.setitem(hub.PUBLISHED, "SamsungSAILMontreal/ghn3/ghn3sm8.pt", known)
    again = load_ghn("hf:SamsungSAILMontreal/ghn3/ghn3sm8.pt", url)
    graph = mixed_graph(classes=7)
    np.testing.assert_array_equal(embed([graph], again), embed([graph], loaded))
    assert predict(graph, again)["params"]["head"]["kernel"].shape == (12, 7)


def test_what_cannot_be_had_is_named(served: tuple[str, pathlib.Path]) -> None:
    url, _ = served
    with pytest.raises(ValueError, match=r"'hf:someone/ghn/no.pt': no.pt cannot be downloaded: .*NotFound"):
        load_ghn("hf:someone/ghn/no.pt", url)
    for name in ("hf:someone", "hf:", "hf:/ghn", "hf:someone/ghn/"):
        with pytest.raises(ValueError, match=f"'{name}' names nothing on the Hub: expected hf:OWNER/REPOSITORY/FILE"):
            load_ghn(name, url)
