"""Bytes to pixels: files by position, local or remote; headers, unpacked copies, units, grids on the sky.

Nothing here knows what a survey is: what goes in works for any FITS image.
"""
