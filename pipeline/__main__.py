"""The command line: `python -m pipeline book ...` of the Makefile, `data|run|chapter PROFILE ...` of the Snakefile."""

from pipeline.make import main

if __name__ == "__main__":
    main()
