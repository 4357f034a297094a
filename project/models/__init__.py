"""The policy: models that read and write text and pictures. See README.md."""

import logging

from project.core.exports import classes_of

__getattr__, __dir__ = classes_of(__name__, __path__)

# bitsandbytes says so on some processors, whoever imports it (peft, diffusers, an optimizer): an optional package is
# missing. Nobody needs it here.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: not record.getMessage().startswith("Failed to load CPU gemm_4bit_forward")
)
