"""The running pipeline: receive, validate, save, settle."""
