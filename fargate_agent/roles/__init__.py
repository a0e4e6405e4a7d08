"""The roles of tasks: their credentials, and the secrets that can be read with them."""
