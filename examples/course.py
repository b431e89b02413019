# %% [markdown]
# # The exercise: is a convolutional network really translation invariant?
#
# Two parts, as in the usual assignment. **Option 1, translation**: evaluate a trained network under every shift, draw
# the matrix, discuss it. **Option 2, feature maps**: look at what the network's layers make of an empty picture and
# of the average picture, and discuss that. Both are done here on handwritten digits, in about a minute and without a
# GPU; the same lines take CIFAR-10 (`"cifar10"` in place of `"digits"`) and a network of your own (`sl.wrap`).
#
# The text in between is a discussion, not a description: train again with another seed and see what stays.

# %%
# %matplotlib inline
import shiftlens as sl
from shiftlens.training import TrainSettings

# %% [markdown]
# ## A network
#
# A small VGG whose convolutions with stride 2 do what pooling does elsewhere. The digits are drawn 20 x 20 in the
# middle of a black picture of 32 x 32: for six pixels to each side, a shift takes nothing away. In training the
# network sees shifts of up to two pixels.

# %%
settings = TrainSettings(arch="vgg6", width=8, downsample="stride", epochs=8)
sl.train(sl.load_images("digits", split="train"), out="runs/course", settings=settings)
model = sl.load_model("runs/course")
images = sl.load_images("digits", split="test")
print(*sl.evaluate(model, images).lines(), sep="\n")

# %% [markdown]
# ## Option 1: translation
#
# Every second shift of up to 16 pixels, 289 in all; leave `step` out for all of them. Two controls go with it.
# *Occlusion* loses the same pixels but leaves the rest in place, *flip* measures mirrored pictures.

# %%
grid = sl.ShiftGrid(16, step=2)
sweep = sl.sweep(model, images, grid, out="course.zarr", controls=("occlusion", "flip"))
pictures = sl.plot(sweep)
pictures["accuracy"]

# %% [markdown]
# The cross is the picture that was not moved; to its right the picture was moved right, below it down. A network that
# is invariant to translation would give one colour as long as the digit is in view.
#
# ### How large is the area where the performance stays strong?

# %%
found = sl.findings(sweep)
print(found.named("accuracy-at-rest"))
print(found.named("retained-95"))
print(found.named("worst-of-radius"))

# %% [markdown]
# The interval in brackets is over images: another set of digits would give a number in there. The area is more than
# what the two pixels of training can explain, so some of the invariance does come from the architecture. *Worst of
# radius* is stricter than the mean: an image counts only if it is right under *every* shift of up to four pixels.

# %%
pictures["profile"]

# %% [markdown]
# ### Does the loss rise and then fall again further out?
#
# On nearly every map some pair of shifts looks like that, by luck. The test looks at all pairs on eight rays and on
# frames, and asks for more than luck can give.

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
# People write with a slant, so that the digits themselves are not symmetric. `asymmetry-x-model` uses the mirrored
# pictures to take that out: what is left is the network's own. It is worth asking for, since there is a mechanism,
# and option 2 comes to it: a convolution with stride 2 looks over one edge of its input and not over the other. Red
# and blue in the picture are single pairs of shifts; the sentences are about the mean over all of them, where corners
# can cancel.
#
# ### Is the evaluation itself misleading?
#
# A shift does two things. It puts the digit elsewhere, *and* beyond six pixels it pushes a part of it out. What is
# new at the other edge is black, which here is what the background was anyway; on photographs it would be a third
# thing.

# %%
print(found.named("occlusion-effect"))
print(found.named("placement-effect"))

# %% [markdown]
# The first number is the price of the lost pixels, which no network could avoid. Only the second is about position.
# What else could mislead is listed, too:

# %%
for finding in found.with_severity("note"):
    print(finding)

# %% [markdown]
# ## Option 2: feature maps
#
# An empty picture is zero everywhere after normalisation. Every layer slides one kernel over it, so every map should
# be as flat as the picture. Beside it: the average map over all test digits, once as they are, and once with every
# picture moved round by a random distance, so that every place sees every content equally often.

# %%
maps = sl.features(model, "zeros", average=images)
pictures = sl.plot_features(maps)
pictures["overview"]

# %% [markdown]
# The first layer's map is flat: it pads with zeros, and the picture is zeros. From the second layer on there is a
# frame. It grows thicker with depth and creeps inwards. Nothing in the picture can be its source.
#
# ### Where does it start, how deep does it reach?

# %%
found = sl.findings(maps)
for name in ("artefact-start", "artefact-energy", "artefact-reach", "average-energy"):
    print(found.named(name))

# %% [markdown]
# ### What is the cause?
#
# Two things at once, and arithmetic alone can tell them apart; no weight is looked at. Padding with zeros makes the
# frame. The input size makes it lopsided: at 32 pixels, a 3 x 3 convolution with stride 2 and a padding of 1 uses its
# padding on the left and above, and never reaches that on the right and below.

# %%
layers = sl.inspect(model, 32)
print(*layers.summary(), sep="\n")

# %%
for size, padding in ((32, None), (33, None), (33, "symmetric")):
    counts = sl.foveation(model, size, padding)
    first, last = counts[:, 0].mean(), counts[:, -1].mean()
    print(f"{size} {padding or 'zeros'}: left/right {first / last:.2f}, left/all {first / counts.mean():.2f}")

# %% [markdown]
# Counted are the ways in which a pixel can reach the last layer. At 32 pixels the leftmost column has more than twice
# as many as the rightmost; at 33 the two are equal, and both still have less than a third of the average: that is the
# frame.
#
# ## Conclusions
#
# - The network is invariant within a region, not everywhere, and the region is larger than the shifts seen in
#   training.
# - A part of what looks like blindness is content that has left the picture; the controls say how large a part.
# - The layers know where they are: an empty picture leaves a frame in every map but the first, and an even input size
#   makes it differ from side to side.
# - Whether that is *why* the accuracy falls is a question for an experiment: change the padding or the size, and
#   measure the same sweep again. The notebook `own-model.ipynb` does so.
