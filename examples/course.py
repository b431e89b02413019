# %% [markdown]
# # The exercise: is a convolutional network really translation invariant?
#
# Two parts, as in the usual assignment. **Option 1, translation**: evaluate a trained network under every shift, draw
# the matrix, discuss it. **Option 2, feature maps**: look at what the network's layers make of a blank input and of
# the average image, and discuss that. Both run here on handwritten digits, in about a minute and without a GPU. The
# same lines work for CIFAR-10 (`"cifar10"` in place of `"digits"`) and for a network of your own (`sl.wrap`).
#
# The text between the cells is a discussion of one run: train again with another seed to see what stays.

# %%
# %matplotlib inline
import shiftlens as sl
from shiftlens.training import TrainSettings

# %% [markdown]
# ## A network
#
# A small VGG in which convolutions with stride 2 replace pooling. The digits are 20 x 20 pixels, in the middle of a
# black image of 32 x 32: shifts of up to six pixels lose nothing. Training shifts images by up to two pixels.

# %%
settings = TrainSettings(arch="vgg6", width=8, downsample="stride", epochs=8)
sl.train(sl.load_images("digits", split="train"), out="runs/course", settings=settings)
model = sl.load_model("runs/course")
images = sl.load_images("digits", split="test")
print(*sl.evaluate(model, images).lines(), sep="\n")

# %% [markdown]
# ## Option 1: translation
#
# Every second shift of up to 16 pixels, 289 in all; without `step`, all of them. Two controls are measured too:
# *occlusion* loses the same pixels but leaves the rest in place, *flip* measures mirrored images.

# %%
grid = sl.ShiftGrid(16, step=2)
sweep = sl.sweep(model, images, grid, out="course.zarr", controls=("occlusion", "flip"))
pictures = sl.plot(sweep)
pictures["accuracy"]

# %% [markdown]
# The cross is the unshifted image; to its right the image is shifted right, below it down. For a network that is
# invariant to translation, the map would have one colour as long as the digit is in view.
#
# ### How large is the area where the performance stays strong?

# %%
found = sl.findings(sweep)
print(found.named("accuracy-at-rest"))
print(found.named("retained-95"))
print(found.named("worst-of-radius"))

# %% [markdown]
# The interval in brackets is over images: the range for other digits of the same kind. The area is larger than the
# two pixels of training explain, so part of the invariance comes from the architecture. *Worst of radius* is stricter
# than the mean: an image counts only if it is right under *every* shift of up to four pixels.

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
# People write with a slant, so the digits themselves are not symmetric. `asymmetry-x-model` removes the dataset's
# part with the mirrored images; the rest is the network's own. There is a mechanism, which option 2 shows: a
# convolution with stride 2 uses the padding on one side of its input and not on the other. Red and blue in the figure
# are single pairs of shifts; the findings are about the mean over all pairs, in which corners can cancel.
#
# ### Is the evaluation itself misleading?
#
# A shift does two things. It moves the digit, *and* beyond six pixels it pushes a part of it out. Black enters at the
# other edge, which is the background's colour anyway; on photographs, the fill would be a third effect.

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
# be constant. Beside it: the average map over all test digits, once as they are, and once with every image rolled by
# a random distance, so that every position sees every content equally often.

# %%
maps = sl.features(model, "zeros", average=images)
pictures = sl.plot_features(maps)
pictures["overview"]

# %% [markdown]
# The first layer's map is constant: it pads zeros with zeros. From the second layer on there is a frame. It grows
# thicker with depth and moves inwards. Nothing in the image can cause it.
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
# This counts the ways in which a pixel can reach the last layer. At 32 pixels the leftmost column has more than twice
# as many as the rightmost; at 33 the two are equal, and both have less than a third of the average: that is the
# frame.
#
# ## Conclusions
#
# - The network is invariant within a region, which is larger than the shifts seen in training.
# - A part of what looks like blindness is content that has left the image; the controls say how large a part.
# - The layers encode position: a blank input leaves a frame in every map but the first, and an even input size makes
#   the frame uneven.
# - Whether this *causes* the loss of accuracy is a question for an experiment: change the padding or the size, and
#   measure the same sweep again. The notebook `own-model.ipynb` does so.
