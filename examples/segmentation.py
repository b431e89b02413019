# %% [markdown]
# # A segmenter under shifts: which pixels change their class?
#
# A segmenter should give every pixel the same class wherever its image lies in the frame. This notebook measures where
# it does not, in about half a minute, without a GPU and without a download. For your own segmenter, replace the two
# lines that load the model and the images; without masks everything but `mean_iou` and `pixel_accuracy` still works.

# %%
# %matplotlib inline
import shiftlens as sl

model = sl.load_model("pretrained:unet-digits")
images = sl.load_images("digits-scenes", split="test", limit=6)
print(sl.evaluate(model, images, task="segmentation"))

# %% [markdown]
# The net is a small U-Net with three poolings, so its coarsest map has one cell for 8 x 8 pixels.
#
# ## Move every image by up to 4 pixels
#
# Compared is only what is in the frame before and after the shift. `pixel_agreement` is the share of those pixels that
# keep the class which they have in the unshifted image; `interior_agreement` leaves 8 px at every border out.

# %%
grid = sl.ShiftGrid(4)
sweep = sl.sweep(model, images, grid, out="unet.zarr", task="segmentation", dtype="float32")
pictures = sl.plot(sweep)
pictures["mean_iou"]

# %%
found = sl.findings(sweep)
for name in ("mean_iou-at-rest", "worst-of-radius", "pixel_agreement-worst", "interior_agreement-worst"):
    print(found.named(name))

# %% [markdown]
# ## Where do pixels change their class?

# %%
print(found.named("border-rate"))
pictures["by-place"]

# %% [markdown]
# ## By which phase?
#
# Pooling looks at the same pixels again after a shift by its stride. One row of 25 shifts holds three periods of the
# coarsest map, 8 px. The trend over the shifts is taken away.

# %%
row = sl.sweep(model, images, sl.ShiftGrid((0, 12)), out="row.zarr", task="segmentation", dtype="float32")
sl.plot(row, metric="pixel_agreement")["phases"]

# %% [markdown]
# The differences are smaller than the interval: nothing that this net owes to its strides can be told from six images.
# The detector of the [other notebook](detection.ipynb) shows its stride clearly.

# %% [markdown]
# ## Another padding
#
# `repair` makes a copy with reflect padding and the same weights, and the same sweep tells what that changes.

# %%
padded, edits = sl.repair(model, padding="reflect")
print(f"{len(edits)} layers, the first: {edits[0]}")

# %%
after = sl.sweep(padded, images, grid, out="padded.zarr", task="segmentation", dtype="float32")
outcome = sl.compare([sweep, after], names=["zeros", "reflect"])
for arm in outcome.rows:
    kept = arm.worst_of_radius.value
    print(f"{arm.name:8} unshifted {arm.unshifted.value:.3f}, at each image's worst shift {kept:.3f}")

# %%
outcome.plot()["differences"]

# %% [markdown]
# A padding that the net was not trained with does not help it, although it draws no edge. With training it may:
# `shiftlens train-scenes --net unet --padding reflect --out runs/reflect` takes two minutes, and `sl.compare` takes
# its sweep as well.
#
# `sl.report([sweep, after], "report.html")` puts all of this on one page, with the images that swing most.
