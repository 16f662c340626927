"""Memory mappings that compiled layers hold, and what it costs to read a dropped layer back.

``python experiments/benchmarks/mappings.py 8`` compiles the layers of that many training networks (C 32, 64 images of
32 x 32), drops them all, which must unmap them, and asks for each again.
"""

import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from ghn_jax.deepnets.sampler import sample_args
from ghn_jax.networks import enable_compilation_cache, network_plan
from ghn_jax.networks.program_cache import Programs, count_mappings
from ghn_jax.networks.schedule import schedule


def measure(networks: int) -> dict[str, float | int | None]:
    """Mappings before, with and after the layers of `networks` networks; seconds of reading one back."""
    enable_compilation_cache()
    programs = Programs()
    images = jax.ShapeDtypeStruct((64, 32, 32, 3), jnp.float32)
    plans = [network_plan(sample_args("train", index)[0].replace(C=32, fc_dim=64)) for index in range(networks)]
    keys = list(dict.fromkeys(step.key for plan in plans for step in schedule(plan, images, True, True, None)))
    before = count_mappings()
    for key in keys:
        programs.get(key)
    held = count_mappings()
    programs.clear()
    dropped, seconds = count_mappings(), []
    for key in keys:
        start = time.perf_counter()
        programs.get(key)
        seconds.append(time.perf_counter() - start)
    return {
        "layers": len(keys),
        "mappings_before": before,
        "mappings_held": held,
        "mappings_a_layer": None if before is None or held is None else (held - before) / len(keys),
        "mappings_after_dropping_all": dropped,
        "reload_seconds_median": statistics.median(seconds),
        "reload_seconds_p90": statistics.quantiles(seconds, n=10)[-1],
    }


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 8), indent=1))
