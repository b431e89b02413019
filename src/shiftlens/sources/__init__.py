"""What comes in: images with labels, and models."""
