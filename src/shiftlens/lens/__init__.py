"""The lens: what a net sees in nothing, and which layer invents it."""
