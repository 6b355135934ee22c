"""Run the command `hepfaas` as `python -m hepfaas`."""

import sys

from hepfaas.cli import main

sys.exit(main())
