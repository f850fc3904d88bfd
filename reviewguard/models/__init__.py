"""The torch modules: encoder, heads, and the model that they form. Nothing here trains."""

import logging

# transformers' Trainer imports bitsandbytes wherever it is installed; bitsandbytes then warns of a kernel that only four-bit
# weights use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
