"""The parts that only development and tests use: real servers, a server that reloads, the files in specs/."""
