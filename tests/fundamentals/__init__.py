"""A guided tour: one idea per file, in the order of their numbers, by the public API alone."""
