"""One module for each program that is measured, with an object `peer`: see `benchmarks.compare.peer`."""
