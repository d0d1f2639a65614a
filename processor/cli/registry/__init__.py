"""Commands that change or show the registry."""
