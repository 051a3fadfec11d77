"""What readers see: tables, figures, the report, and findings for the console."""
