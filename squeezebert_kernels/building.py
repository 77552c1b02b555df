"""What to say where a compiled library is missing."""

BUILD_COMMAND = "pip install --no-build-isolation -e ."
