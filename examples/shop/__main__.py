"""`python examples/shop` opens the shop, as `python examples/shop/run.py` does."""

import sys

from run import main

sys.exit(main())
