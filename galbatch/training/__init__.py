"""What makes a prior: libraries of galaxy images, stamps of them, the fit, and the tests of a network.

A run never imports this; what it loads is ``galbatch.prior``.
"""
