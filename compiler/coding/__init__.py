"""Entropy coding of compressed networks, and the `.eiez` file that holds them."""
