"""Two trainings of two processes each. `test_integrations_lightning.py` runs it with a folder and a strategy of Lightning."""

import sys
import warnings

import lightning
import torch

from forebay.integrations.lightning import ForebayLogger

warnings.filterwarnings("ignore")


class Tiny(lightning.LightningModule):
    def __init__(self, width=4):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(width, 1)

    def training_step(self, batch, index):
        loss = self.layer(batch).pow(2).mean()
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(logger, folder, strategy):
    data = torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=4)
    trainer = lightning.Trainer(
        max_epochs=1, logger=logger, default_root_dir=folder, accelerator="cpu", devices=2, strategy=strategy, log_every_n_steps=1,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Tiny(), data)


def main(folder, strategy):
    torch.set_num_threads(1)
    fit(ForebayLogger(folder, name="x"), folder, strategy)
    logger = ForebayLogger(folder, name="x")
    logger.log_metrics({"before": 1.0}, 0)
    fit(logger, folder, strategy)
    logger.finalize("success")


if __name__ == "__main__":
    main(*sys.argv[1:])
