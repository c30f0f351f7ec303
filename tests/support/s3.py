"""moto's S3 server, but that ranges of large objects are read from the files that hold them: moto reads an
object whole, gigabytes of a mosaic, for every range of it.

    python s3.py -p PORT
"""

import mmap

from moto.s3.models import FakeKey
from moto.server import main

LARGE = 1 << 28
_whole = FakeKey.value


def _value(key):
    """The bytes of an object; of a large one, which is read by ranges alone, a view of its file."""
    file = key._value_buffer
    if key.size > LARGE and getattr(file, "_rolled", False):
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _whole.fget(key)


if __name__ == "__main__":
    FakeKey.value = property(_value, _whole.fset)
    main()
