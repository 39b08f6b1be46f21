"""The accelerator: parameters, bit layouts, and the blocks of the array in Amaranth."""
