"""The drill: load over both entrances while the HSM fails in every way it can, and proof of what came out."""
