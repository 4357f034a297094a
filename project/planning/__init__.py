"""What a run needs: memory and time."""
