"""`python -m bizlog.cli`, where the `bizlog` script is not on the path."""

import sys

from bizlog.cli import main

sys.exit(main())
