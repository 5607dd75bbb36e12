"""`python -m jaxrec`, the same as the command `jaxrec`."""

import sys

from jaxrec.cli import main

if __name__ == "__main__":
    sys.exit(main())
