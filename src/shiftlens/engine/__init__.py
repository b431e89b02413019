"""A chunk of images under every shift: arrays of predictions, losses and confidences."""
