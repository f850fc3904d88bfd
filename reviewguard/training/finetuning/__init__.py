"""Fine-tuning with transformers' Trainer and verified checkpoints."""
