"""What is wrong with a survey before a run, finding by finding, each with its remedy.

What goes in reads and reports; it changes nothing that a run does.
"""
