"""Fuzzing for as long as one likes: every parser by what it might be given."""
