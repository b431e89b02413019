"""The chunks of a sweep computed on Ray: workers, the connection, and what cleans up after a local session."""
