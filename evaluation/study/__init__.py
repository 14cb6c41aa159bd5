"""The grids of the study, and the study in small."""
