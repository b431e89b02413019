"""Studies: many nets x seeds, trained, measured and compared, with the training run as the unit of every interval."""
