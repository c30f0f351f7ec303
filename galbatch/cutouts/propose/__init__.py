"""Survey files proposed from a folder of FITS files (``galbatch init``).

What goes in guesses and says so; a run never guesses.
"""
