"""Emerge3D: where 3D emerges inside video foundation models.

Four nouns carry everything: `Clip`, `Features`, `Reconstruction` and `Report`.
Importing this package loads neither torch nor diffusers.
"""

import os

# Idle OpenMP threads spin by default, and on a machine that does anything else they steal the time
# of the threads they wait for: a VAE pass of 3 s took 14 s. Those that sleep at once cost a wake-up
# for each of the many small operations of the ray tracer, which then takes six times as long. So
# they spin for a fraction of a millisecond, then sleep. It must be set before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "100000")

__version__ = "0.1.0"
