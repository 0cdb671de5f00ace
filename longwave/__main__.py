"""`python -m longwave`, which is what `torchrun -m longwave` starts."""

import sys

from longwave.cli import main

sys.exit(main())
