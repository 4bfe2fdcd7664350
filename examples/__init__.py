"""An example product of five services, for people to run and to copy from."""
