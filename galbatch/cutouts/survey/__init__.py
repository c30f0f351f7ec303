"""What a survey file says (layouts, keys, checked dataclasses), and its files opened, tile by tile.

What goes in knows mosaics and bands, never a source of a catalogue.
"""
