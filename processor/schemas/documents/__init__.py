"""Turn schema files, bundles and API descriptions into one complete schema."""
