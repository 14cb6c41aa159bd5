"""What is made of finished results: tables, plots, panels, intervals, pages."""
