"""Made-up data with a known answer."""
