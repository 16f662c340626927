"""One module a benchmark; each has ``run(repeats) -> {figure: value}`` and prints its own table."""
