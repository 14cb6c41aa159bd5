"""The folder of a run: written slice by slice, sealed, and read again."""
