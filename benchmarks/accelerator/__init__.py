"""What one accelerator and a few minutes can say: agreement, K-scaling, the step beside PyTorch, and training."""
