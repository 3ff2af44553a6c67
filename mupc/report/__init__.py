"""Reports: a Plan to a string, purely."""
