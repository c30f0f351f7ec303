"""The noise of a mosaic: its variance per pixel from the planes of a layout, and what blank sky says of both.

What goes in takes arrays or an open tile, and gives numbers in the unit of the image.
"""
