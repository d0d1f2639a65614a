"""Programs of ours that die, hang or run out of something on purpose."""
