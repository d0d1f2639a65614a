"""Schema files, bundles and API descriptions, turned into one complete schema."""
