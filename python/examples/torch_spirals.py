"""Trains a small net with PyTorch: `python torch_spirals.py [FOLDER]`. Needs torch, and runs on a CPU in seconds.

One line of it is about forebay: the import. It was `from torch.utils.tensorboard import SummaryWriter`.
"""

import math
import sys

import torch

from forebay import SummaryWriter


def spirals(points=400, arms=3):
    """Points on three arms of a spiral, and the arm of each."""
    arm = torch.randint(arms, (points,))
    radius = torch.rand(points)
    angle = 4 * radius + 2 * math.pi * arm / arms + 0.1 * torch.randn(points)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), arm


def main(folder, epochs=40):
    torch.manual_seed(0)
    data = torch.utils.data.TensorDataset(*spirals())
    loader = torch.utils.data.DataLoader(data, batch_size=50, shuffle=True)
    model = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.Tanh(), torch.nn.Linear(32, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    step = 0
    with SummaryWriter(folder) as writer:
        for epoch in range(epochs):
            right = 0
            for points, arm in loader:
                scores = model(points)
                loss = torch.nn.functional.cross_entropy(scores, arm)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                right += (scores.argmax(1) == arm).sum()
                writer.add_scalar("train/loss", loss, step)
                step += 1
            writer.add_scalar("train/accuracy", right / len(data), epoch)
            for name, weights in model.named_parameters():
                writer.add_histogram(f"weights/{name}", weights, epoch)
        writer.add_hparams({"lr": 0.02, "hidden": 32}, {"accuracy": right / len(data)}, run_name="hparams")
    print(f"{folder}: accuracy {right / len(data):.3f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/spirals")
