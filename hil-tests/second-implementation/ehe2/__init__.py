"""A second implementation of the format of SPEC.md, for judging bytes."""
