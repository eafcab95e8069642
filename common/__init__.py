"""The ground floor: JSON settings, errors, keys, and files that are written whole. Standard library only."""
