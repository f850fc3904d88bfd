"""The torch core: encoder, heads, and the model they make up."""

import logging

# transformers' Trainer imports bitsandbytes wherever it is installed, and that warns of a kernel which only four-bit weights use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
