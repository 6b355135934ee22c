"""`python -m hepfaas` is the command `hepfaas`."""

import sys

from hepfaas.cli import main

sys.exit(main())
