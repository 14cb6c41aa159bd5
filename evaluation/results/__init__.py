"""The results folder of a run: writing slice by slice, checksums, and reading."""
