"""How fast maskfix is on this machine, measured in one run; see `maskfix.bench.run`."""
