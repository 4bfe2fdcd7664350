"""Two services that talk, and a program that torments every part of them in turn and counts what is lost."""
