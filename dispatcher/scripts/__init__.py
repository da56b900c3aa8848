"""The scripts that a leader runs."""
