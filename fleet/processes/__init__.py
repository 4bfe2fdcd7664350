"""Work in threads and in processes of its own, with limits, and programs that end with the run."""
