"""Another training task on the same trainer: linear regression by optax. Run as a script: FOLDER, updates in all."""

import pathlib
import sys
import time

import jax
import jax.numpy as jnp
import optax

from ghn_jax.runs.callbacks import SaveEvery, Validation
from ghn_jax.runs.trainer import Outcome, StepOutput, Trainer, by_number

OPTIMISER = optax.adam(0.05)
TRUE = jnp.arange(3.0)


def batch(number: int) -> tuple[jax.Array, jax.Array]:
    inputs = jax.random.normal(jax.random.key(number), (16, 3))
    return inputs, inputs @ TRUE


@jax.jit
def gradient_step(state, batch, key):
    def loss(weights):
        inputs, targets = batch
        kept = jax.random.bernoulli(key, 0.9, inputs.shape)
        return ((jnp.where(kept, inputs, 0) @ weights - targets) ** 2).mean()

    weights, moments = state
    value, gradient = jax.value_and_grad(loss)(weights)
    updates, moments = OPTIMISER.update(gradient, moments)
    return (optax.apply_updates(weights, updates), moments), value


def step_fn(state, batch, number, key):
    time.sleep(0.01)  # so that it can be killed in between
    state, loss = gradient_step(state, batch, key)
    return StepOutput(state, {"loss": float(loss)})


def evaluate(state):
    return {"closeness": -float(abs(state[0] - TRUE).sum())}


def train(folder: pathlib.Path, total: int, **options) -> Outcome:
    weights = jnp.zeros(3)
    state = (weights, OPTIMISER.init(weights))
    callbacks = [SaveEvery(0), Validation(evaluate, 20, "closeness")]
    return Trainer(
        step_fn, state, by_number(batch), callbacks, folder=folder, total_steps=total, key=jax.random.key(0), **options
    ).run()


if __name__ == "__main__":
    train(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
