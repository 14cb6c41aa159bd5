"""The earlier name of `python -m datasets.check`, for scripts that call it."""

import runpy

if __name__ == "__main__":
    runpy.run_module("datasets.check", run_name="__main__", alter_sys=True)
