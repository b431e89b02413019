# %% [markdown]
# # The exercise: is a convolutional network really translation invariant?
#
# Two parts, as in the usual assignment. **Option 1, translation**: evaluate a trained network under every shift, draw
# the matrix, discuss it. **Option 2, feature maps**: look at what the network's layers make of a blank input and of
# the average image, and discuss that. Both run here on handwritten digits, in about a minute and without a GPU. For
# CIFAR-10, change the name in the next cell (`DATA = "cifar10"`: some ten minutes on two cores); for a network of your
# own, use `sl.wrap`.
#
# The text between the cells says how to read the numbers; the numbers themselves are printed by the cells, of this run
# and of these images. Train again with another seed to see what stays.

# %%
# %matplotlib inline
import shiftlens as sl
from shiftlens.training import TrainSettings

DATA = "digits"  # "cifar10", "folder:photos", "torchvision:FashionMNIST", ...
NAME = DATA.replace(":", "-").replace("/", "-")  # of the run, the sweep and all that is written

# %% [markdown]
# ## A network
#
# A small VGG in which convolutions with stride 2 replace pooling. Training shifts images by up to two pixels. (The
# digits are 20 x 20 pixels in the middle of a black image of 32 x 32: shifts of up to six pixels lose nothing. A
# photograph loses something at the first pixel.)

# %%
settings = TrainSettings(arch="vgg6", width=8, downsample="stride", epochs=8)
sl.train(sl.load_images(DATA, split="train"), out=f"runs/course-{NAME}", settings=settings)
model = sl.load_model(f"runs/course-{NAME}")
images = sl.load_images(DATA, split="test", limit=1000)
print(*sl.evaluate(model, images).lines(), sep="\n")

# %% [markdown]
# ## Option 1: translation
#
# Every second shift of up to 16 pixels, 289 in all; without `step`, all of them. Two controls are measured too:
# *occlusion* loses the same pixels but leaves the rest in place, *flip* measures mirrored images.

# %%
grid = sl.ShiftGrid(16, step=2)
sweep = sl.sweep(model, images, grid, out=f"course-{NAME}.zarr", controls=("occlusion", "flip"))
pictures = sl.plot(sweep)
pictures["accuracy"]

# %% [markdown]
# The cross is the unshifted image; to its right the image is shifted right, below it down. For a network that is
# invariant to translation, the map would have one colour as long as the content is in view. The line surrounds the
# shifts that keep 95 % of the accuracy at the cross.
#
# ### How large is the area where the performance stays strong?

# %%
found_shifts = found = sl.findings(sweep)
print(found.named("accuracy-at-rest"))
print(found.named("retained-95"))
print(found.named("worst-of-radius"))

# %% [markdown]
# The interval in brackets is over images: the range for other images of the same kind. Compare the area with what
# training has shown: what is larger comes from the architecture. *Worst of radius* is stricter than the mean: an image
# counts only if it is right under *every* shift of up to four pixels.

# %%
shown = (2 * model.training["augmentation"]["shift"] + 1) ** 2
area = found.named("retained-95")
if area is not None and area.interval is not None:
    low, high = area.interval
    verdict = "more than" if low > shown else "less than" if high < shown else "not clearly another area than"
    print(f"95 % are kept over {low:.0f} to {high:.0f} px², {verdict} the {shown} px² of shifts shown in training")

# %%
pictures["profile"]

# %% [markdown]
# ### Does the loss rise and then fall again further out?
#
# On nearly every map some pair of shifts looks like that by chance. The test considers all pairs on eight rays and on
# frames, and requires more than chance gives.

# %%
print(found.named("irregular-accuracy"))
print(found.named("irregular-loss"))

# %% [markdown]
# ### Is it the same to the left and to the right, up and down?

# %%
for name in ("asymmetry-x", "asymmetry-x-model", "asymmetry-y"):
    print(found.named(name))

# %%
pictures["sides"]

# %% [markdown]
# Images need not be symmetric themselves: people write with a slant, photographs have a ground below. The finding
# `asymmetry-x-model` removes the dataset's part with the mirrored images; the rest is the network's own. There is a
# mechanism, which option 2 shows: a convolution with stride 2 uses the padding on one side of its input and not on the
# other. Red and blue in the figure are single pairs of shifts, and lines surround those that are significant; the
# findings are about the mean over all pairs, in which corners can cancel.
#
# ### Is the evaluation itself misleading?
#
# A shift does two things. It moves the content, *and* it pushes a part of it out: of a digit beyond six pixels, of a
# photograph at once. Black enters at the other edge: for the digits the background's colour, for photographs a third
# effect.

# %%
print(found.named("occlusion-effect"))
print(found.named("placement-effect"))

# %% [markdown]
# The first number is the cost of the lost pixels, which no network can avoid. Only the second is about position. The
# findings marked `note` list what else may mislead:

# %%
for finding in found.with_severity("note"):
    print(finding)

# %% [markdown]
# ## Option 2: feature maps
#
# A blank input is zero everywhere after normalisation. Every layer applies one kernel everywhere, so every map should
# be constant. Beside it: the average map over all test images, once as they are, and once with every image rolled by
# a random distance, so that every position sees every content equally often.

# %%
maps = sl.features(model, "zeros", average=images)
pictures = sl.plot_features(maps)
pictures["overview"]

# %% [markdown]
# The first layer pads zeros with zeros, so its map is constant (grey). A frame in a later layer comes from nothing in
# the image. Look whether it grows thicker with depth.
#
# ### Where does it start, how deep does it reach?

# %%
found = sl.findings(maps)
for name in ("artefact-start", "artefact-energy", "artefact-reach", "average-energy"):
    print(found.named(name))

# %% [markdown]
# ### What is the cause?
#
# Two causes at once, and arithmetic separates them without any weights. Zero padding causes the frame. The input size
# makes it uneven: at 32 pixels, a 3 x 3 convolution with stride 2 and a padding of 1 uses its padding on the left and
# above, and never reaches it on the right and below.

# %%
layers = sl.inspect(model, 32)
print(*layers.summary(), sep="\n")

# %%
for size, padding in ((32, None), (33, None), (33, "symmetric")):
    counts = sl.foveation(model, size, padding)
    first, last = counts[:, 0].mean(), counts[:, -1].mean()
    print(f"{size} {padding or 'zeros'}: left/right {first / last:.2f}, left/all {first / counts.mean():.2f}")

# %% [markdown]
# This counts the ways in which a pixel can reach the last layer; it knows no images and no weights. Of this network at
# 32 pixels the leftmost column has more than twice as many as the rightmost; at 33 the two are equal, and both have
# less than a third of the average: that is the frame.
#
# ## Conclusions
#
# The numbers of this run, beside what they say:

# %%
print("Invariance:", found_shifts.named("retained-95"))
print("Lost content:", found_shifts.named("occlusion-effect"))
print("Position:", found_shifts.named("placement-effect"))
print("Sides:", found_shifts.named("asymmetry-x-model"))
print("Borders:", found.named("artefact-start"))

# %% [markdown]
# - A network is invariant within a region: the first line says how large it is.
# - A part of what looks like blindness is content that has left the image; the second and third say how large a part.
# - The layers encode position: a blank input leaves a frame in the maps, and an even input size makes it uneven.
# - Whether this *causes* the loss of accuracy is a question for an experiment: change the padding or the size, and
#   measure the same sweep again. The notebook `own-model.ipynb` does so.
