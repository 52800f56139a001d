"""`python -m dagger_ros.cli`, where the command is not on PATH."""

from dagger_ros.cli import main

main()
