"""Lines of all benchmarks, and the picture that is drawn from them."""

import json
import pathlib

import benchmark
import pytest
from benchmarks import history
from PIL import Image


def test_a_line_holds_what_each_benchmark_printed_last(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = tmp_path / "benchmark.py"
    fake.write_text("import json, sys\nprint('a table')\nprint(json.dumps({'asked': sys.argv[1:]}))\n")
    monkeypatch.setattr(history, "COMMAND", fake)
    row = history.measure(["networks", "step"], 3)
    assert row["figures"] == {name: {"asked": [name, "--json", "--repeats=3"]} for name in ("networks", "step")}
    assert row["versions"]["jax"]
    assert row["processor"]
    assert row["cores"] >= 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("a table") == 2
    fake.write_text("raise SystemExit(3)")
    with pytest.raises(SystemExit, match="networks --json --repeats=3 ended with status 3"):
        history.measure(["networks"], 3)


def test_every_figure_that_is_drawn_is_of_a_benchmark() -> None:
    assert {name for name, _ in history.SHOWN} <= set(benchmark.NAMES)


def test_the_picture_shows_lines_that_lack_figures_and_refuses_what_is_none(tmp_path: pathlib.Path) -> None:
    lines = [
        {"time": "2026-01-01T00:00:00", "versions": {"commit": "0123456789"}, "figures": {"step": {"step_s": 4.0}}},
        {"time": "2026-02-01T00:00:00", "versions": {}, "figures": {"networks": {"seconds": 5.0}}},
    ]
    file = tmp_path / "history.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with Image.open(history.picture(file, tmp_path / "history.png")) as image:
        assert image.size[0] > 3 * image.size[1]
    file.write_text("{}\n")
    with pytest.raises(ValueError, match=r"line 1 is no line of benchmark\.py all"):
        history.picture(file, tmp_path / "history.png")
    file.write_text("")
    with pytest.raises(ValueError, match="is empty"):
        history.picture(file, tmp_path / "history.png")
