"""Statistics, diagnostics and the tables that chapters are made from."""
