"""Training and evaluation of VAE, IWAE, IWAE(h) and H-IWAE on images."""
