"""Commands that show or change the registry."""
