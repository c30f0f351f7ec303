"""``python -m galbatch`` is the ``galbatch`` command."""

from galbatch.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
