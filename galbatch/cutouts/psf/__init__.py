"""Point-spread functions: files of every kind, the checks that they must pass, and the PSF of each source.

What goes in is about PSFs alone; how wrong a PSF may be is the sampler's.
"""
