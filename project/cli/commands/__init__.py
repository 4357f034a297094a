"""One file for each command that is not Lightning's."""
