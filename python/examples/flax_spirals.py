"""Trains a small net with Flax, and logs it to a run: `python flax_spirals.py [FOLDER]`. Needs flax, and runs on a CPU in seconds."""

import sys

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import forebay

CONFIG = {"learning_rate": 0.02, "epochs": 40, "batch": 50, "hidden": 32, "seed": 0}


def spirals(points=400, arms=3, seed=0):
    """Points on three arms of a spiral, and the arm of each."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, arms, points)
    radius = rng.random(points)
    angle = 4 * radius + 2 * np.pi * arm / arms + rng.normal(0, 0.1, points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32), arm


class Net(nnx.Module):
    def __init__(self, hidden, rngs):
        self.first = nnx.Linear(2, hidden, rngs=rngs)
        self.second = nnx.Linear(hidden, hidden, rngs=rngs)
        self.last = nnx.Linear(hidden, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.second(nnx.tanh(self.first(x)))))


@nnx.jit
def train_step(net, optimizer, metrics, x, arm):
    def loss_of(net):
        scores = net(x)
        return optax.softmax_cross_entropy_with_integer_labels(scores, arm).mean(), scores

    (loss, scores), gradients = nnx.value_and_grad(loss_of, has_aux=True)(net)
    optimizer.update(net, gradients)
    metrics.update(loss=loss, logits=scores, labels=arm)


def main(runs):
    x, arm = spirals(seed=CONFIG["seed"])
    rng = np.random.default_rng(CONFIG["seed"])
    net = Net(CONFIG["hidden"], nnx.Rngs(CONFIG["seed"]))
    optimizer = nnx.Optimizer(net, optax.adam(CONFIG["learning_rate"]), wrt=nnx.Param)
    metrics = nnx.MultiMetric(loss=nnx.metrics.Average("loss"), accuracy=nnx.metrics.Accuracy())
    with forebay.init(runs, name="spirals", config=CONFIG) as run:
        for epoch in range(CONFIG["epochs"]):
            for batch in rng.permutation(len(x)).reshape(-1, CONFIG["batch"]):
                train_step(net, optimizer, metrics, x[batch], arm[batch])
            # Metrics are summed on the device. They are waited for once an epoch, here.
            run.log({f"train.{name}": value for name, value in metrics.compute().items()}, step=epoch)
            metrics.reset()
            if epoch % 10 == 0:
                # A tensor of more than one number becomes a histogram.
                for path, weights in nnx.to_flat_state(nnx.state(net, nnx.Param)):
                    run.log({f"weights.{'.'.join(path)}": weights[...]}, step=epoch)
        accuracy = float(jnp.mean(jnp.argmax(net(x), 1) == arm))
        run.summary["accuracy"] = accuracy
        report = run.finish()
    print(f"{run.folder}: accuracy {accuracy:.3f}, {report.offered} events, {report.lost} lost")
    return accuracy, run


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs")
