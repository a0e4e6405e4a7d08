"""How the tables came to be as `model` has them, step by step; run by `schema`."""
