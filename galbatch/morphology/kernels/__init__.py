"""The statistics on pixels, compiled with numba. Import ``engine`` or ``sersic_psf``; the rest is theirs."""
