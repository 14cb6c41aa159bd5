"""Evaluation of priors and samplers on data sets: reconstructions, metrics, tables, figures."""

import configs.installed  # noqa: F401 -- reports missing packages and how to install them
