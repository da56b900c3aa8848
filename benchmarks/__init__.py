"""Benchmarks. Each module is a program that prints one JSON line."""
