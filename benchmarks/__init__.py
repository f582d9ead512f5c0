"""Measures this project beside what it is to be compared with, in one run: `make bench`, `make bench-quick`."""
