"""`python -m tumorlens`, the same as `tumorlens`."""

import sys

from tumorlens.cli import main

sys.exit(main())
