"""Training loops and loggers: each file needs the package that it is named after, and nothing else loads it."""
