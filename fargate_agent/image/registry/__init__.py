"""A registry, and how it is asked: which password it is shown, requests, logins, the protocol."""
