"""Presentation of finished results: tables, plots, panels, intervals, reports."""
