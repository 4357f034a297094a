"""Draw, edit, answer, refine and export with a trained model."""

from project.core.exports import classes_of

__getattr__, __dir__ = classes_of(__name__, __path__)
