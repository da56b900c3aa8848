"""The same work on Callboard and on programs for the same purpose, each in an environment of its own."""
