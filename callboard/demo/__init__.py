"""The demonstration: a census of Python's own standard library, by agents one of which is killed among its tasks."""
