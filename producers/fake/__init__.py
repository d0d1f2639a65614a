"""Invented events: good ones, bad ones and duplicates, the same for the same seed."""
