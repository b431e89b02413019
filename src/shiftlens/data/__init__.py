"""What comes in: images with their labels, from any source."""
