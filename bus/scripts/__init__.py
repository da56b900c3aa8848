"""The scripts that clients run."""
