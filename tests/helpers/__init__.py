"""What several tests use. Import it as `tests.helpers.NAME`, in tests and in configurations alike."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
