# %% [markdown]
# # A detector that flickers: the same object, one pixel further
#
# "The confidence swings when the object moves by a pixel" is one of the oldest complaints about detectors. This
# notebook measures it: every object of a few images is followed through every shift. It runs in about half a minute,
# without a GPU and without a download. For your own detector, replace the two lines that load the model and the images.

# %%
# %matplotlib inline
import shiftlens as sl

model = sl.load_model("pretrained:detector-digits")
images = sl.load_images("digits-scenes", split="test", limit=6)
print(sl.evaluate(model, images, task="detection"))

# %% [markdown]
# The images are handwritten digits scattered over a canvas of 96 x 96 pixels. Unshifted, the detector finds all.
#
# ## Move every image
#
# All shifts of up to 6 pixels, 169 in all. Boxes move with the image. An object of which less than half is in view is
# ignored: it is neither missed, nor is what matches it a false alarm.

# %%
grid = sl.ShiftGrid(6)
sweep = sl.sweep(model, images, grid, out="detector.zarr", task="detection", dtype="float32")
print(sweep)

# %% [markdown]
# One line an object, over dx and over dy: the best score of its class at IoU 0.5 or more. The black mean hides most
# of it.

# %%
pictures = sl.plot(sweep)
pictures["objects"]

# %%
found = sl.findings(sweep)
print(found.named("object-swing"))
print(found.named("worst-of-radius"))

# %% [markdown]
# That is the flicker. It is no noise: the net has no randomness, and each line is one object in one image.
#
# ## Where, and by which phase?
#
# Every object visits many places, so recall by the place of the object's centre separates "the detector is worse at the
# border" from "what stands at the border is harder".

# %%
print(found.named("border-rate"))
pictures["by-place"]

# %% [markdown]
# The dark dots lie a stride of the net apart. The same dependence as a matrix over the phase of the shift (dx mod 4,
# dy mod 4), with the trend over the shifts taken away:

# %%
pictures["phases"]

# %% [markdown]
# ## Is the padding the cause?
#
# `repair` makes a copy of the model with one change, here another padding; the weights stay. The same sweep tells
# whether it helped: differences are paired, image by image, and corrected together.

# %%
padded, edits = sl.repair(model, padding="reflect")
after = sl.sweep(padded, images, grid, out="padded.zarr", task="detection", dtype="float32")
outcome = sl.compare([sweep, after], names=["zeros", "reflect"])
for row in outcome.rows:
    kept = row.worst_of_radius.value
    print(f"{row.name:8} unshifted {row.unshifted.value:.3f}, at each image's worst shift {kept:.3f}")

# %%
outcome.plot()["differences"]

# %% [markdown]
# Reflected content looks like objects, and the net was trained with zeros: without training, this change makes the
# detector worse, not better. The border was not the cause of the flicker, the stride is. What to try next: blur before
# the strides (`sl.repair(model, downsample="blur")`), training on shifted images, and averaging the scores of a few
# shifts. Each is measured by the same two lines.
#
# `sl.report([sweep, after], "report.html")` puts all of this on one page, with the worst objects as strips of pictures.
