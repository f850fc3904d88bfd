"""Fine-tuning: transformers' Trainer on our model, with verified checkpoints."""
