"""JSON Schemas: read in five drafts, compiled, linted, inferred and compared."""
