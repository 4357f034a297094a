"""The commands of `python -m project` besides Lightning's: one file each, found by name."""
