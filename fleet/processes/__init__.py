"""Run work in threads and in separate processes, with limits, and run programs that end with fleet."""
