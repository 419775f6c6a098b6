"""The cost of a hierarchical bound beside the IWLB, and beside a port to PyTorch."""
