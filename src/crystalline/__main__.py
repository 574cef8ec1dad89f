"""`python -m crystalline` is `cllm`."""

import sys

from crystalline.cli.main import main

sys.exit(main())
