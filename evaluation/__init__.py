"""From a prior and data to numbers: evaluate, metrics, tables, figures."""

import configs.installed  # noqa: F401 -- says what to do where a package is missing
