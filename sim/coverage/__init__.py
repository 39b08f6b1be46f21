"""Coverage of the hardware's Amaranth source by the regressions: points, waivers, functional bins, pages."""
