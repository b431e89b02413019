"""What is audited: models by name, from files, or wrapped, each with its preprocessing."""
