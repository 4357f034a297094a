"""Who answers questions about pictures and texts. See README.md."""

from project.core.exports import classes_of

__getattr__, __dir__ = classes_of(__name__, __path__)
