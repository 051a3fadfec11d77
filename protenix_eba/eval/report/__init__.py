"""Reports of an evaluation: tables, figures, the HTML page, and findings for the console."""
