"""What is measured under every shift: a model's raw output to one row of numbers a window."""
