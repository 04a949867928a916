"""`moorage`: the command line. It carries; the deciding is done by the packages below it."""
