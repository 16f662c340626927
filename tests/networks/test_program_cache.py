"""What compiled layers hold is bounded, by number and by memory mappings of the process."""

import gc
import json
import logging
import os
import subprocess
import sys

import pytest
from layer_programs import program_keys
from tiny_runs import ROOT, environment

from ghn_jax.networks.program_cache import PROGRAM_BYTES, Bound, Programs, count_mappings

needs_mappings = pytest.mark.skipif(count_mappings() is None, reason="this system does not list memory mappings")
KEYS = list(program_keys(backward=False).values())


@needs_mappings
def test_dropping_a_layer_unmaps_it():
    programs = Programs()

    def mappings() -> int:
        return count_mappings() or 0

    def compile_and_drop() -> int:
        for key in KEYS[:8]:
            programs.get(key)
        most = programs.report().mappings
        assert most is not None
        assert most == mappings()
        programs.clear()
        return most

    compile_and_drop()  # the first compilation loads more than programs
    before = mappings()
    gained = compile_and_drop() - before
    assert gained > 8 * 3
    assert mappings() - before < gained / 4  # the heap may have grown


def test_reading_layers_back_leaves_no_traces_behind():
    keys = list(program_keys(backward=True).values())[:12]
    programs = Programs(Bound(programs=1, mappings=None))

    def traced() -> int:
        for key in keys:
            programs.get(key)
        gc.collect()
        return sum(type(held).__name__ == "ClosedJaxpr" for held in gc.get_objects())

    traced()
    traced()
    before = traced()
    left = traced() - before
    assert programs.report().reloaded == 3 * len(keys)
    assert left <= len(keys)  # some are JAX's own; eight of each layer stayed with the tree of its vjp


def test_the_least_recently_used_go_first():
    programs = Programs(Bound(programs=2, mappings=None))
    first, second, third = KEYS[:3]
    for key in (first, second, first, third):
        programs.get(key)
    report = programs.report()
    assert (report.compiled, report.held, report.dropped, report.reloaded) == (3, 2, 1, 0)
    programs.get(first)
    assert programs.report().compiled == 3
    programs.get(second)
    report = programs.report()
    assert (report.compiled, report.reloaded, report.dropped) == (3, 1, 2)


def test_what_is_in_use_is_found_though_it_was_dropped():
    programs = Programs(Bound(programs=1, mappings=None))
    used = programs.get(KEYS[0])
    programs.get(KEYS[1])
    assert programs.get(KEYS[0]) is used
    assert programs.report().reloaded == 0


@needs_mappings
def test_too_many_mappings_of_others_leave_one_layer_and_one_message(caplog):
    programs = Programs(Bound(programs=10, mappings=1))
    with caplog.at_level(logging.WARNING):
        for key in KEYS[:3]:
            programs.get(key)
    assert programs.report().held == 1
    assert [record.message.count("max_map_count") for record in caplog.records] == [1]


def test_bound_of_the_system():
    bound = Bound.of_system()
    assert bound.programs > 100
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        assert bound.programs * PROGRAM_BYTES <= memory / 15 < (bound.programs + 1) * PROGRAM_BYTES
    assert bound.mappings is None or bound.mappings > 10_000
    with pytest.raises(ValueError, match="at least 1"):
        Bound(programs=0, mappings=None)


PROGRAM = """
import json
import jax.numpy as jnp
import numpy as np
import jax
from flax.traverse_util import flatten_dict
from network_args import small_args
from ghn_jax.networks import Runner, TargetNetwork, enable_compilation_cache, network_plan
from ghn_jax.networks.program_cache import Bound, Programs

enable_compilation_cache()
images, labels = jnp.ones((2, 16, 16, 3)), jnp.arange(2)
bounded = Runner(Programs(Bound(programs=1000, mappings=LIMIT)))
most, losses = 0, []
for width in [*range(8, 200, 8)] * 2:
    args = small_args((("msa", 1), ("skip_connect", 0)), preproc=False, C_mult=1, C=width)
    shapes = jax.eval_shape(TargetNetwork(args).init, jax.random.key(0), images)["params"]
    params = flatten_dict(jax.tree.map(lambda leaf: np.full(leaf.shape, 0.05, np.float32), shapes))
    bounded.warm([network_plan(args)], images.shape, threads=2)
    loss, _, gradients = bounded.loss_and_grads(network_plan(args), params, images, labels, rng=jax.random.key(0))
    losses.append(float(loss))
    most = max(most, bounded.report().mappings)
report = bounded.report()
print(json.dumps([most, report.dropped, report.reloaded, report.held, losses]))
"""


@needs_mappings
def test_a_process_stays_below_an_artificial_limit():
    """Networks that need more in all run as often as they like, with the same results each time."""
    limit = 2000
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", PROGRAM.replace("LIMIT", str(limit))]
    done = subprocess.run(command, env=environment(**paths), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    most, dropped, reloaded, held, losses = json.loads(done.stdout)
    assert most <= limit
    assert held > 20
    assert min(dropped, reloaded) > 20
    assert losses[: len(losses) // 2] == losses[len(losses) // 2 :]
