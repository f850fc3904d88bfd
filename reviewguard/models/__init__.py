"""PyTorch modules: the encoder, the heads and the model that combines them. Training is in `reviewguard.training`."""

import logging

# transformers' Trainer imports bitsandbytes if it is installed, and bitsandbytes then warns about a kernel that only 4-bit
# weights use.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
