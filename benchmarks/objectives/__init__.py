"""What training with other objectives than the bound itself gains and costs."""
