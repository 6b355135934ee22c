"""Commands on one machine: training in worker processes (`train`), and the whole service (`up`)."""
