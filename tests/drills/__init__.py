"""Faults on purpose: ``python -m tests.drills`` brings each about, many times, and prints what survived."""
