"""What IPython runs first in the kernels of the book (PYTHONSTARTUP)."""

import static_outputs

static_outputs.install()
del static_outputs
