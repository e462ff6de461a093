"""Trains a small net with JAX, and logs it to a run: `python jax_spirals.py [FOLDER]`. Needs jax, and runs on a CPU in seconds."""

import logging
import sys

import jax
import jax.numpy as jnp
import numpy as np

import forebay
from forebay.integrations.logging import ForebayHandler

CONFIG = {"learning_rate": 0.5, "steps": 600, "hidden": 32, "log_every": 10, "seed": 0}


def spirals(points=400, arms=3, seed=0):
    """Points on three arms of a spiral, and the arm of each."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, arms, points)
    radius = rng.random(points)
    angle = 4 * radius + 2 * np.pi * arm / arms + rng.normal(0, 0.1, points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1), arm


def begin(key, sizes):
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(keys, sizes, sizes[1:])
    return [(jax.random.normal(key, (many, few)) * (2 / many) ** 0.5, jnp.zeros(few)) for key, many, few in shapes]


def forward(params, x):
    for weights, bias in params[:-1]:
        x = jnp.tanh(x @ weights + bias)
    weights, bias = params[-1]
    return x @ weights + bias


def loss_of(params, x, arm):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(forward(params, x)), arm[:, None], 1))


@jax.jit
def step_of(params, x, arm, rate):
    loss, gradients = jax.value_and_grad(loss_of)(params, x, arm)
    norm = jnp.sqrt(sum(jnp.sum(each**2) for each in jax.tree.leaves(gradients)))
    return jax.tree.map(lambda old, gradient: old - rate * gradient, params, gradients), loss, norm


def main(runs):
    x, arm = map(jnp.asarray, spirals(seed=CONFIG["seed"]))
    params = begin(jax.random.key(CONFIG["seed"]), [2, CONFIG["hidden"], CONFIG["hidden"], 3])
    log = logging.getLogger("spirals")
    with forebay.init(runs, name="spirals", config=CONFIG) as run:
        log.addHandler(ForebayHandler(run))
        for step in range(CONFIG["steps"]):
            params, loss, norm = step_of(params, x, arm, CONFIG["learning_rate"])
            # JAX runs ahead of Python. A number that is logged is waited for: so log one of some steps.
            if step % CONFIG["log_every"] == 0:
                run.log({"train.loss": loss, "train.gradient_norm": norm}, step=step)
            if step % 100 == 0:
                run.log({"weights.first": params[0][0]}, step=step)
        accuracy = float(jnp.mean(jnp.argmax(forward(params, x), 1) == arm))
        run.summary["accuracy"] = accuracy
        if accuracy < 0.9:
            log.warning("it learned only %.0f %%", 100 * accuracy)
        report = run.finish()
    print(f"{run.folder}: accuracy {accuracy:.3f}, {report.offered} events, {report.lost} lost")
    return accuracy, run


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs")
