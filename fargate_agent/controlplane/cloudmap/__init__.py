"""The part of AWS Cloud Map by which services of ECS are found; on the port of the ECS API.

Names and errors are those of the Cloud Map API reference; texts of errors are unverified.
"""
