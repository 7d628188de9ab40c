"""The command line that the Snakefile uses: `python -m pipeline data|run|chapter PROFILE ...`."""

from pipeline.make import main

main()
