"""Tells what it was made of."""
import os

import bottle

print("python with bottle", bottle.__version__, "as", os.getuid())
