# %% [markdown]
# # My own model, my own data
#
# What you need: a module that takes normalised pictures and gives scores, and a data set of `(picture, label)` pairs.
# Here both are made from scratch in plain PyTorch. The rest is five calls: `wrap`, `load_images`, `sweep`,
# `findings`, and, if there is something to mend, `repair` and `compare`.

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
# Scikit-learn's digits, 8 x 8, doubled and laid in the middle of 24 x 24. Any data set serves whose items are a
# picture (a tensor `[c, h, w]` of bytes or of floats from 0 to 1, an array, or a Pillow image) and a number.


# %%
class Digits(Dataset):
    classes = tuple(f"digit {k}" for k in range(10))

    def __init__(self, train: bool) -> None:
        pixels, labels = load_digits(return_X_y=True)
        chosen = (np.arange(len(labels)) % 5 == 0) != train
        small = torch.from_numpy(pixels[chosen]).float().reshape(-1, 1, 8, 8) / 16
        large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
        self.pictures = nn.functional.pad(large, (4, 4, 4, 4))
        self.labels = labels[chosen]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        return self.pictures[k], int(self.labels[k])


train, test = Digits(train=True), Digits(train=False)
print(len(train), len(test), tuple(train[0][0].shape))

# %% [markdown]
# ## The model, and its training
#
# Nothing of this knows about shiftlens. The pictures stay where they are: this network never sees one that is moved.

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
        scores = net((train.pictures[batch] - MEAN) / STD)
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(train.labels)[batch])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
net = net.eval()

# %% [markdown]
# ## Wrap both, and look
#
# `wrap` is told what the module expects: mean and standard deviation in the pixel range 0 to 1, and the size.
# `evaluate` is there to check that nothing went wrong on the way: if this accuracy is not the one you know, stop
# here.
#
# The sweep below takes every shift of up to 5 pixels; a digit is 16 pixels large, so up to 4 it stays whole. Steps of
# 2 would be quicker and wrong: the network halves its maps three times, and odd shifts are hardest on it.

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
# The control `canvas` runs the same weights with no padding near the picture, and nothing else changed.

# %%
print(found.named("padding-effect"))
print(found.named("padding-position-effect"))

# %% [markdown]
# And what do the layers make of a picture in which there is nothing?

# %%
maps = sl.features(model, "zeros")
for finding in sl.findings(maps):
    print(finding)

# %% [markdown]
# ## Repair, and measure again
#
# There are marks of the borders in every map, so the padding is the first suspect, whatever the canvas said. The
# second is the pooling: it keeps every second cell, and which content falls on those changes with every odd shift.
# `repair` makes a copy with one thing changed; the weights stay, and every change is listed.

# %%
padded, edits = sl.repair(model, padding="symmetric")
blurred, more_edits = sl.repair(model, downsample="blur")
for edit in [*edits, *more_edits]:
    print(edit)

# %% [markdown]
# A network expects what it was trained with, so the batch norm of a copy is measured again on the training pictures;
# no weight changes by that. The original gets the same treatment: otherwise nobody could tell which of the two steps
# made the difference.

# %%
arms = {}
for name, changed in (("original", model), ("symmetric", padded), ("blur", blurred)):
    healed, _ = surgery.reestimate(changed, sl.load_images(train))
    arms[name] = sl.sweep(healed, images, grid, out=f"{name}.zarr", dtype="float32")

outcome = sl.compare(list(arms.values()), names=list(arms))
for row in outcome.rows:
    kept = row.worst_of_radius.value
    print(f"{row.name:10} at rest {row.at_rest.value:.3f}, right under every shift within 4 px {kept:.3f}")

# %%
print("improved:", outcome.improved, sep="\n")
print("got worse:", outcome.got_worse, sep="\n")

# %%
outcome.plot()["differences"]

# %% [markdown]
# Here the mirror at the border is no cure, and the blur before the pooling is: without any training, more than twice
# as many images are right under *every* shift that leaves the digit whole. The price is what it loses at rest, if
# anything.
#
# Every difference is paired, image by image, and all of them are corrected together; `outcome.cannot_be_told` holds
# the rest, with the smallest difference that would have been found. What is learnt from this is about this one
# network. If it matters, train several, fine-tune the repaired ones, and give the originals the same extra training
# before you compare ([how](../docs/repair.md)).
