#!/usr/bin/env bash
# lightning 2.6.1 and accelerate 1.15.0 (torch 2.13.0): a batch sampler of one's own with set_epoch.
# What they do: Lightning calls set_epoch of DataLoader(sampler=), never of DataLoader(batch_sampler=); Accelerate calls it,
# starting with 0, and fetches one batch ahead of the step that is running.
# Why it surprises: batch_sampler is torch's own place for class-balanced batches, and set_epoch the usual signal; a loop
# moved from one framework to the other keeps running.
# Consequence: with Lightning every epoch draws the same batches where the seed follows the epoch, so a class-aware sampler
# repeats one draw of its tail images; with Accelerate a sampler saved in mid-epoch is a batch ahead.
# Remedy: count epochs inside __iter__, or call set_epoch in on_train_epoch_start; subtract the batch ahead.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install -q --no-compile --disable-pip-version-check 'torch==2.13.0' 'numpy==2.4.6' 'lightning==2.6.1' 'accelerate==1.15.0'
venv/bin/python - <<'EOF'
import logging, warnings
import torch

warnings.simplefilter("ignore")
import lightning
from accelerate import Accelerator

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
X, log = torch.zeros(8, 1), []


class Batches:
    batch_size, drop_last = 2, False

    def set_epoch(self, epoch):
        log.append(f"epoch {epoch}")

    def __iter__(self):
        for i in range(0, 8, 2):
            log.append(f"fetch {i // 2}")
            yield [i, i + 1]

    def __len__(self):
        return 4


class Order(torch.utils.data.SequentialSampler):
    def set_epoch(self, epoch):
        log.append(f"epoch {epoch}")


class Net(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, i):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def told(loader):
    log.clear()
    lightning.Trainer(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      enable_model_summary=False, accelerator="cpu").fit(Net(), loader)
    return [entry for entry in log if entry.startswith("epoch")]


Loader = torch.utils.data.DataLoader
own, plain = told(Loader(X, batch_sampler=Batches())), told(Loader(X, batch_size=2, sampler=Order(X)))
print("expected: epoch 0, epoch 1 for both kinds of sampler")
print(f"seen: Lightning sampler {plain}, batch_sampler {own}")
assert plain == ["epoch 0", "epoch 1"] and own == []
log.clear()
for i, batch in enumerate(Accelerator(cpu=True).prepare(Loader(X, batch_sampler=Batches()))):
    log.append(f"step {i}")
print("expected: fetch 0, step 0, fetch 1, step 1, ...")
print(f"seen: Accelerate {log}")
assert log[:4] == ["epoch 0", "fetch 0", "fetch 1", "step 0"]
EOF
