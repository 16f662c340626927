"""Meta-training of a graph hypernetwork: GHN-2, GHN-1 or the MLP baseline.

What the paper reports (Knyazev et al., NeurIPS 2021, Tables 3 and 4: mean on 500 unseen test architectures, %):

| hypernetwork | CIFAR-10 top-1 | ImageNet top-5 |
|---|---|---|
| MLP | 42.2 | not reported |
| GHN-1 | 51.4 | 17.2 |
| GHN-2 | 66.9 | 27.2 |

  python experiments/meta_train.py --dataset=cifar10 --data-dir=DIR   GHN-2 as in the paper: days on one GPU
  python experiments/meta_train.py --preset=demo                      digits, minutes on two CPU cores

The demo ends with a table and a picture: at least 50 architectures that it never saw, predicted against He
initialisation. A run that was stopped goes on when the same command is given again.
"""

import os

import running

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # XLA warns at length about every program that it reads back

if __name__ == "__main__":
    running.quiet_start()

import time

import jax
from terminal import Terminal, show_log

from ghn_jax.metatraining.command import parse_config, set_up
from ghn_jax.metatraining.loop import train
from ghn_jax.metatraining.validation import final_evaluation


def main() -> None:
    start = time.monotonic()
    config = parse_config(None, running.described(__doc__))
    terminal = Terminal()
    show_log(terminal)
    set_up(config.run)
    if jax.process_index() == 0:
        print(f"on {jax.device_count()} devices ({jax.devices()[0].device_kind}), in {config.run_dir}", flush=True)
    result = train(config, terminal)
    config = result.config
    print(f"{result.steps} updates, {(time.monotonic() - start) / 60:.1f} minutes, in {config.run_dir}", flush=True)
    if jax.process_index() == 0:
        passed_over = f"{result.passed_over:,} passed over, their meta-batches too large"
        held_out = f"{result.held_out:,} draws left out, {config.architectures.held_out_rule}"
        print(f"trained on {result.networks:,} networks; {passed_over}; {held_out}", flush=True)
    if not result.finished or jax.process_index() != 0 or not config.run.test_architectures:
        return
    counts = {"passed_over": result.passed_over, "held_out": result.held_out}
    _, table, files = final_evaluation(config, result.ghn, result.params, result.images, **counts)
    print(table)
    print("written:", *files)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes in all")


if __name__ == "__main__":
    running.run(main)
