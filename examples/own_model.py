# %% [markdown]
# # My own model, my own data
#
# You need a module that maps normalised images to logits, and a data set of `(image, label)` pairs. Here both are
# made in plain PyTorch. The rest is five calls: `wrap`, `load_images`, `sweep`, `findings`, and, if there is
# something to repair, `repair` and `compare`.

# %%
# %matplotlib inline
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset

import shiftlens as sl
from shiftlens import surgery

# %% [markdown]
# ## The data set
#
# Scikit-learn's digits, 8 x 8, doubled and placed in the middle of 24 x 24. Any data set works whose items are an
# image (a tensor `[c, h, w]` of bytes or of floats from 0 to 1, an array, or a Pillow image) and a number.


# %%
class Digits(Dataset):
    classes = tuple(f"digit {k}" for k in range(10))

    def __init__(self, train: bool) -> None:
        pixels, labels = load_digits(return_X_y=True)
        chosen = (np.arange(len(labels)) % 5 == 0) != train
        small = torch.from_numpy(pixels[chosen]).float().reshape(-1, 1, 8, 8) / 16
        large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
        self.images = nn.functional.pad(large, (4, 4, 4, 4))
        self.labels = labels[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        return self.images[k], int(self.labels[k])


train, test = Digits(train=True), Digits(train=False)
print(len(train), len(test), tuple(train[0][0].shape))

# %% [markdown]
# ## The model, and its training
#
# Nothing here uses shiftlens. Training shows no shifted images.

# %%
MEAN, STD = 0.15, 0.3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers, channels = [], 1
        for width in (8, 16, 32):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).mean((2, 3)))


torch.manual_seed(0)
net = Net()
optimiser = torch.optim.AdamW(net.parameters())
n_epochs, n_batches = 10, -(-len(train) // 64)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=n_epochs * n_batches)
for _epoch in range(n_epochs):
    for batch in torch.randperm(len(train)).split(64):
        logits = net((train.images[batch] - MEAN) / STD)
        loss = nn.functional.cross_entropy(logits, torch.from_numpy(train.labels)[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
net = net.eval()

# %% [markdown]
# ## Wrap both, and measure
#
# `wrap` takes what the module expects: mean and standard deviation in the pixel range 0 to 1, and the size.
# `evaluate` checks the setup: if this accuracy is not the one you know, stop here.
#
# The sweep takes every shift of up to 5 pixels; a digit is 16 pixels large, so up to 4 it stays whole. Steps of 2
# would be faster and misleading: the network halves its maps three times, and odd shifts are hardest for it.

# %%
model = sl.wrap(net, mean=MEAN, std=STD, size=24, name="my net")
images = sl.load_images(test)
print(*sl.evaluate(model, images).lines(), sep="\n")

# %%
grid = sl.ShiftGrid(5)
before = sl.sweep(model, images, grid, out="before.zarr", dtype="float32", controls=("canvas",))
sl.plot(before)["accuracy"]

# %%
found = sl.findings(before)
for name in ("accuracy-at-rest", "retained-95", "worst-of-radius", "asymmetry-x", "asymmetry-y"):
    print(found.named(name))

# %% [markdown]
# ## Is the padding the cause?
#
# The control `canvas` runs the same weights with no padding near the image, and nothing else changed.

# %%
print(found.named("padding-effect"))
print(found.named("padding-position-effect"))

# %% [markdown]
# What do the layers make of a blank input?

# %%
maps = sl.features(model, "zeros")
for finding in sl.findings(maps):
    print(finding)

# %% [markdown]
# ## Repair, and measure again
#
# Every map shows border artefacts, so padding is the first suspect, whatever the canvas control says. The second is
# the pooling: it keeps every second cell, and every odd shift changes which content these cells hold. `repair` makes
# a copy with one change; the weights stay, and every edit is listed.

# %%
padded, edits = sl.repair(model, padding="symmetric")
blurred, more_edits = sl.repair(model, downsample="blur")
for edit in [*edits, *more_edits]:
    print(edit)

# %% [markdown]
# A network expects what it was trained with, so the batch norm of a copy is re-estimated on the training images; this
# changes no weight. The original gets the same treatment: otherwise the comparison would mix two changes.

# %%
arms = {}
for name, changed in (("original", model), ("symmetric", padded), ("blur", blurred)):
    adapted, _ = surgery.reestimate(changed, sl.load_images(train))
    arms[name] = sl.sweep(adapted, images, grid, out=f"{name}.zarr", dtype="float32")

outcome = sl.compare(list(arms.values()), names=list(arms))
for row in outcome.rows:
    kept = row.worst_of_radius.value
    print(f"{row.name:10} unshifted {row.unshifted.value:.3f}, right under every shift within 4 px {kept:.3f}")

# %%
print("improved:", outcome.improved, sep="\n")
print("got worse:", outcome.got_worse, sep="\n")

# %%
outcome.plot()["differences"]

# %% [markdown]
# Here mirror padding does not help, and the blur before the pooling does: without any training, more than twice as
# many images are right under *every* shift that leaves the digit whole. The cost is the accuracy that it loses
# unshifted, if any.
#
# Every difference is paired, image by image, and all are corrected together; `outcome.cannot_be_told` holds the
# inconclusive ones, each with the smallest detectable difference. This is about one network. Before you rely on it,
# train several, fine-tune the repaired ones, and give the originals the same extra training
# ([how](../docs/repair.md)).
