"""The exporter of layers, to time them elsewhere."""

import json

import jax
import jax.numpy as jnp
from benchmarks import layers
from layer_programs import networks

from ghn_jax.networks import network_plan
from ghn_jax.networks.schedule import schedule


def test_every_call_is_counted_once(tmp_path, capsys):
    shape = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    small = [args for args in networks() if args.image_size == 32]
    steps = [step for args in small for step in schedule(network_plan(args), shape, True, True, None)]
    layers.write(steps, tmp_path / "layers.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "layers.jsonl").read_text().splitlines()]
    left = sum(layers.described(step.key) is None for step in steps)
    assert 0 < left < len(steps)
    assert sum(row["count"] for row in rows) == len(steps) - left
    assert f"{left} calls of stems, concatenations, heads left out" in capsys.readouterr().out
    assert {row["kind"] for row in rows} == {*layers.KINDS.values(), "max", "avg"}
    strided = [row for row in rows if (row["kind"], row["k"], row["stride"]) == ("conv", 7, 2)]
    assert strided
    assert all(row["bn"] and row["batch"] == 2 for row in strided)
