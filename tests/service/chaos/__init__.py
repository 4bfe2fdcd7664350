"""Two services that talk, and a program that breaks each part of them in turn and counts the losses."""
