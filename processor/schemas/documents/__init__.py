"""Schema documents: files, bundles and API descriptions made into one schema."""
